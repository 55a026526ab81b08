//! What a sign-in and a refresh take, of a process that does both and of the store: at npm's `oidc-provider`, whose access tokens
//! live so short that there is much to refresh.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::costs::{AuthnCosts, StoreCosts};
use super::lab::{Lab, tell};
use super::measure::{SETTLED, busy};
use crate::compare::site::{self, AUTHENTICATE, CLIENT, HOST, PORTS};
use crate::compare::{Processes, sign_in};
use crate::edge::cluster_url;
use crate::people::SHARED_SECRET;
use crate::table::count;

/// Of authn; and of the store for it.
pub(super) async fn measure(lab: &Lab, store: &mut StoreCosts) -> Result<AuthnCosts> {
    let provider = block_in_place(|| site::Provider::start(ACCESS))?;
    let folder = tempfile::tempdir()?;
    site::certificate(folder.path())?;
    let [health, metrics] = [site::free()?, site::free()?];
    let (port, [client_id, client_secret]) = (PORTS.start, CLIENT);
    let text = format!(
        r"address: 127.0.0.1:{port}
health_check_addr: {health}
metrics_address: {metrics}
log_level: error
proxy_log_level: error
certificates:
  - cert: {cert}
    key: {key}
authenticate_service_url: https://{AUTHENTICATE}:{port}
idp_provider: oidc
idp_provider_url: {issuer}
idp_client_id: {client_id}
idp_client_secret: {client_secret}
shared_secret: {shared}
cookie_secret: {shared}
databroker_storage_type: redis
databroker_storage_connection_string: {store}
routes:
  - from: https://{HOST}:{port}
    response:
      status: 200
    allow_any_authenticated_user: true
",
        cert = folder.path().join("cert.pem").display(),
        key = folder.path().join("key.pem").display(),
        issuer = provider.issuer,
        shared = STANDARD.encode(SHARED_SECRET),
        store = cluster_url(&lab.cluster),
    );
    let (config, log) = (folder.path().join("authn.yaml"), folder.path().join("authn.log"));
    site::write(&config, &text)?;
    let mut command = Command::new(&lab.binary);
    command.arg("run").arg("--config").arg(&config);
    command.stdout(site::log(&folder.path().join("authn.out"))?).stderr(site::log(&log)?);
    let mut process = Processes::start(command)?;
    block_in_place(|| site::listens(&mut process, ([127, 0, 0, 1], port).into(), &log))?;
    let authority = folder.path().join("cert.pem");
    let once = |number: usize| {
        let jar = folder.path().join(format!("{number}.cookies"));
        block_in_place(|| sign_in(HOST, port, &authority, &jar))
    };
    tell("authn: nobody comes");
    let began = Instant::now();
    while let Err(error) = once(0) {
        ensure!(began.elapsed() < PATIENCE, "nobody can sign in: {error:#}");
        sleep(Duration::from_millis(200)).await;
    }
    sleep(SETTLED).await;
    let (cpu, moment) = (process.cpu(), lab.moment()?);
    sleep(lab.size.span).await;
    let rest = lab.moment()?.since(&moment);
    let second_micros = (process.cpu() - cpu).as_secs_f64() * 1e6 / rest.seconds;
    store.authn_micros = busy(store, &rest, PROCESSES) / rest.seconds;

    tell("authn: sign-ins");
    let refreshed = || block_in_place(|| refreshes(&format!("http://{metrics}/metrics")));
    let at_rest = |since: Instant| since.elapsed().as_secs_f64() * second_micros;
    let (before, cpu, at) = (refreshed()?, process.cpu(), Instant::now());
    for number in 1..=lab.size.sign_ins {
        once(number)?;
    }
    let micros = (process.cpu() - cpu).as_secs_f64() * 1e6 - at_rest(at);
    let among = refreshed()? - before;

    tell("authn: refreshes");
    let (before, cpu, at, moment) = (refreshed()?, process.cpu(), Instant::now(), lab.moment()?);
    sleep(REFRESHING).await;
    let refreshes = refreshed()? - before;
    ensure!(refreshes > 0.0, "no session was refreshed within {} s", REFRESHING.as_secs());
    let refresh_micros = ((process.cpu() - cpu).as_secs_f64() * 1e6 - at_rest(at)).max(0.0) / refreshes;
    let done = lab.moment()?.since(&moment);
    let looking = done.seconds * store.authn_micros;
    store.refresh_micros = (busy(store, &done, PROCESSES) - looking).max(0.0) / refreshes;
    // Some who signed in first were refreshed while others came.
    let sign_in_micros = (micros - among * refresh_micros).max(0.0) / count(lab.size.sign_ins);
    Ok(AuthnCosts { second_micros, sign_in_micros, refresh_micros })
}

/// Seconds of an access token's life: a session is refreshed once in ten seconds at most.
const ACCESS: u32 = 11;
/// This one, and who signed people in.
const PROCESSES: f64 = 2.0;
const REFRESHING: Duration = Duration::from_secs(25);
const PATIENCE: Duration = Duration::from_secs(30);

/// Refreshes that went well, as the metrics tell.
fn refreshes(url: &str) -> Result<f64> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", url]);
    counted(&site::output(curl)?).context("the metrics are not as expected")
}

fn counted(metrics: &str) -> Option<f64> {
    let lines = metrics.lines().filter(|line| line.starts_with("postern_authn_refreshes_total{"));
    let good = lines.filter(|line| line.contains("outcome=\"ok\""));
    good.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refreshes_that_went_well_are_counted() {
        let told = "postern_authn_refreshes_total{idp=\"a\",outcome=\"ok\"} 3\n\
                    postern_authn_refreshes_total{idp=\"a\",outcome=\"overtaken\"} 2\n\
                    postern_authn_refreshes_total{idp=\"b\",outcome=\"ok\"} 4\n";
        assert_eq!(counted(told), Some(7.0));
        assert_eq!(counted(""), Some(0.0));
        assert_eq!(counted("postern_authn_refreshes_total{outcome=\"ok\"} many\n"), None);
    }
}
