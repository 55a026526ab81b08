//! `autocert` staples what it orders: a good answer of the authority's OCSP responder, never another one, replaced in time, and
//! shown to its end while the responder is away; what was revoked is ordered anew (01 §1.5, RFC 6960, RFC 7633).

use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::{
    Behaviour, Browser, ISSUER, NO_PROVIDER, PUBLIC, Pebble, Postern, Responder, Upstream, World, eventually,
    plain_client,
};

/// A Postern that lacks a certificate for `app` alone, its authority, and the place of a responder.
struct Scene {
    world: World,
    pebble: Pebble,
    responder: Responder,
    config: String,
    _upstream: Upstream,
}

/// The serial number of a certificate that was ordered before.
const SERIAL: u64 = 0x1001;

impl Scene {
    /// Certificates of the authority name the responder if they are to; `more` is written into the configuration.
    async fn new(names_responder: bool, more: &str) -> Result<Self> {
        let (world, upstream, responder) = (World::new()?, Upstream::start().await?, Responder::nowhere()?);
        let named = names_responder.then(|| responder.url());
        let behaviour = Behaviour { ports: (world.port, 1), responder: named, ..Behaviour::default() };
        let pebble = Pebble::start(&world, &behaviour).await?;
        Responder::speak_for(&world, &pebble).await?;
        std::fs::write(world.path("root.pem"), pebble.root().await?)?;
        world.issue(("certificate.pem", "key.pem"), &[format!("authenticate.{}", World::DOMAIN)])?;
        let settings = format!("{NO_PROVIDER}{}{more}", pebble.settings(&world));
        let config = world.config(&settings, &world.route("app", &upstream.url(), PUBLIC));
        Ok(Self { world, pebble, responder, config, _upstream: upstream })
    }

    async fn run(&self) -> Result<Postern> {
        Postern::run(&self.world, &self.config).await
    }

    /// A certificate of the authority, as if it had been ordered before: one that must be stapled.
    fn ordered_before(&self) -> Result<PathBuf> {
        let (world, name) = (&self.world, format!("app.{}", World::DOMAIN));
        let access = format!("authorityInfoAccess = OCSP;URI:{}", self.responder.url());
        let extensions = format!("subjectAltName = DNS:{name}\ntlsfeature = status_request\n{access}\n");
        Responder::certify(world, ISSUER, ("before", &extensions), SERIAL)?;
        let read = |file: &str| std::fs::read_to_string(world.path(file));
        let folder = self.pebble.folder(world);
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, [read("before.key")?, read("before.pem")?, read("issuer.pem")?].concat())?;
        Ok(file)
    }

    async fn stapled(&self) -> Option<Vec<u8>> {
        self.world.stapled("app").await.ok()?
    }

    /// The serial number of the certificate that is served, if it is one of the authority's.
    async fn serial(&self) -> Option<u64> {
        let mut browser = Browser::new(&self.pebble.root().await.ok()?).ok()?;
        browser.visit(self.world.url("app", "/")).await.ok()?;
        let shown = self.world.shown("app").await.ok()?;
        let (_, certificate) = X509Certificate::from_der(&shown).ok()?;
        u64::from_str_radix(&certificate.tbs_certificate.serial.to_str_radix(16), 16).ok()
    }

    async fn metric(&self, name: &str) -> Result<u64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.world.metrics);
        let text = plain_client()?.get(url).send().await?.text().await?;
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("0");
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    }
}

fn said(postern: &Postern, what: &str) -> Option<()> {
    let mut log = postern.log().into_iter();
    log.find(|line| line["message"].as_str().is_some_and(|message| message.contains(what))).map(drop)
}

/// What openssl says behind that word, as seconds since 1970.
fn time(said: &str, word: &str) -> Result<u64> {
    let (_, rest) = said.split_once(&format!("{word}: ")).with_context(|| said.to_owned())?;
    let date = rest.lines().next().unwrap_or_default();
    let output = Command::new("date").args(["-u", "-d", date, "+%s"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())
}

#[tokio::test]
async fn a_staple_is_replaced_at_half_of_its_life_and_shown_to_its_end_while_the_responder_is_away() -> Result<()> {
    let mut scene = Scene::new(false, "").await?;
    scene.ordered_before()?;
    scene.responder.begin(&scene.world, ISSUER, &[(SERIAL, true)], 1).await?;
    let postern = scene.run().await?;
    let first = eventually("a staple", async || scene.stapled().await).await.with_context(|| postern.told())?;
    let status = scene.world.status("app")?;
    for line in ["OCSP Response Status: successful", "Cert Status: good", "Serial Number: 1001"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let checked = scene.world.verified(&first, "root.pem")?;
    assert!(checked.contains("Response verify OK"), "{checked}");
    assert_eq!(scene.serial().await, Some(SERIAL), "nothing was ordered");

    let another = async || {
        let now = scene.stapled().await.expect("a staple all the time");
        (now != first).then_some(now)
    };
    let second = eventually("another staple", another).await.with_context(|| postern.told())?;
    let second_said = scene.world.verified(&second, "root.pem")?;
    let (begun, replaced) = (time(&checked, "This Update")?, time(&second_said, "This Update")?);
    assert!((begun + 25..begun + 60).contains(&replaced), "at half of a minute, before its end: {}", replaced - begun);

    // Neither the responder nor the process is there, and what it said last is shown from the first moment.
    scene.responder.end();
    postern.kill().await?;
    let postern = scene.run().await?;
    assert_eq!(scene.stapled().await, Some(second.clone()), "{}", postern.told());
    let until = time(&second_said, "Next Update")?;
    let mut last = 0;
    let ended = async || {
        let at = now().ok()?;
        let Some(stapled) = scene.stapled().await else { return now().ok() };
        assert_eq!(stapled, second);
        last = at;
        None
    };
    let ended = eventually("the end of the staple", ended).await.with_context(|| postern.told())?;
    assert!(last < until && ended >= until, "shown to {last}, not any more at {ended}, good until {until}");
    assert!(scene.world.status("app")?.contains("OCSP response: no response sent"));
    assert_eq!(scene.serial().await, Some(SERIAL), "it is served without");
    eventually("it is counted", async || {
        (scene.metric("postern_autocert_names_without_staple").await.ok()? == 1).then_some(())
    })
    .await
    .with_context(|| postern.told())?;
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_was_revoked_is_stapled_no_more_and_ordered_anew() -> Result<()> {
    let mut scene = Scene::new(true, "").await?;
    scene.ordered_before()?;
    scene.responder.begin(&scene.world, ISSUER, &[(SERIAL, true)], 60).await?;
    let postern = scene.run().await?;
    eventually("a staple", async || scene.stapled().await).await.with_context(|| postern.told())?;
    postern.kill().await?;

    // What the folder has of it is old enough to be asked about again.
    let folder = scene.pebble.folder(&scene.world);
    std::fs::remove_file(folder.join(format!("app.{}.ocsp", World::DOMAIN)))?;
    scene.responder.begin(&scene.world, ISSUER, &[(SERIAL, false)], 60).await?;
    let postern = scene.run().await?;
    let another = async || scene.serial().await.filter(|serial| *serial != SERIAL);
    let serial = eventually("another certificate", another).await.with_context(|| postern.told())?;
    assert!(said(&postern, "the authority has revoked the certificate").is_some(), "{}", postern.told());
    assert_eq!(scene.metric("postern_autocert_staples_total{outcome=\"revoked\"}").await?, 1);
    assert_eq!(scene.metric("postern_autocert_orders_total{outcome=\"ok\"}").await?, 1);
    assert_eq!(scene.stapled().await, None, "the responder does not know it yet");

    scene.responder.begin(&scene.world, ISSUER, &[(SERIAL, false), (serial, true)], 60).await?;
    let stapled = eventually("a staple of the new one", async || scene.stapled().await).await;
    let stapled = stapled.with_context(|| postern.told())?;
    let checked = scene.world.verified(&stapled, "root.pem")?;
    assert!(checked.contains("Response verify OK") && checked.contains("Cert Status: good"), "{checked}");
    assert_eq!(scene.serial().await, Some(serial));
    assert_eq!(scene.metric("postern_autocert_orders_total{outcome=\"ok\"}").await?, 1, "one was enough");
    Ok(())
}

#[tokio::test]
async fn what_somebody_else_has_signed_is_not_stapled_and_what_a_delegate_has_signed_is() -> Result<()> {
    let mut scene = Scene::new(false, "").await?;
    scene.ordered_before()?;
    let world = &scene.world;
    Responder::certify(world, ISSUER, ("server", "extendedKeyUsage = serverAuth\n"), 7)?;
    Responder::certify(world, ISSUER, ("delegate", "extendedKeyUsage = OCSPSigning\nnoCheck = ignored\n"), 8)?;
    scene.responder.begin(&scene.world, "server", &[(SERIAL, true)], 60).await?;
    let postern = scene.run().await?;
    let refused =
        async || (scene.metric("postern_autocert_staples_total{outcome=\"error\"}").await.ok()? > 0).then_some(());
    eventually("an answer that is refused", refused).await.with_context(|| postern.told())?;
    let mut log = postern.log().into_iter();
    let line = log.find(|line| line["message"].as_str().is_some_and(|text| text.starts_with("there is no new staple")));
    let line = line.with_context(|| postern.told())?;
    assert!(line["error"].as_str().is_some_and(|error| error.contains("nobody has signed it")), "{line}");
    assert_eq!(scene.stapled().await, None);
    assert_eq!(scene.metric("postern_autocert_names_without_staple").await?, 1);

    scene.responder.begin(&scene.world, "delegate", &[(SERIAL, true)], 60).await?;
    let stapled = eventually("a staple", async || scene.stapled().await).await.with_context(|| postern.told())?;
    let checked = scene.world.verified(&stapled, "root.pem")?;
    assert!(checked.contains("Response verify OK"), "{checked}");
    assert_eq!(scene.metric("postern_autocert_names_without_staple").await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_authority_that_leaves_must_staple_out_or_has_no_responder_is_served_and_told_of() -> Result<()> {
    let scene = Scene::new(false, "autocert_must_staple: true\n").await?;
    let postern = scene.run().await?;
    eventually("a certificate", async || scene.serial().await).await.with_context(|| postern.told())?;
    for line in ["`autocert_must_staple` is on", "nothing can be stapled"] {
        eventually(line, async || said(&postern, line)).await.with_context(|| postern.told())?;
    }
    assert_eq!(scene.metric("postern_autocert_names_without_must_staple").await?, 1);
    assert_eq!(scene.metric("postern_autocert_names_without_staple").await?, 1);
    assert_eq!(scene.stapled().await, None);
    Ok(())
}
