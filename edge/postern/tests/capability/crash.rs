//! Ended without warning at any moment, Postern starts again and knows every session that it acknowledged.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context, Result};
use reqwest::StatusCode;

use crate::support::{ANY_USER, Browser, Postern, Provider, Upstream, World, eventually};

/// Browsers whose sign-in was answered with a session.
type Acknowledged = Arc<Mutex<Vec<Browser>>>;

#[tokio::test]
async fn r_018_acknowledged_sessions_outlive_a_kill() -> Result<()> {
    let world = Arc::new(World::new()?);
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let config = world.config(&provider.settings(), &world.route("app", &upstream.url(), ANY_USER));
    let acknowledged = Acknowledged::default();
    // Each round ends in the middle of other people's sign-ins.
    for enough in [1, 5, 12] {
        let postern = Postern::run(&world, &config).await?;
        let people: Vec<_> =
            (0..4).map(|_| tokio::spawn(sign_in_again_and_again(world.clone(), acknowledged.clone()))).collect();
        let seen = eventually("sign-ins", async || (with(&acknowledged, |all| all.len()) >= enough).then_some(()));
        seen.await.with_context(|| postern.told())?;
        postern.kill().await?;
        for person in people {
            person.await?;
        }
    }

    let postern = Postern::run(&world, &config).await?;
    let mut browsers = with(&acknowledged, std::mem::take);
    assert!(browsers.len() >= 12, "{}", browsers.len());
    for browser in &mut browsers {
        let page = browser.peek(world.url("app", "/")).await?;
        assert_eq!(page.status, StatusCode::OK, "a session is lost: {page:?}\n{}", postern.told());
    }
    Ok(())
}

/// New people sign in, one after the other, until nobody answers any more.
async fn sign_in_again_and_again(world: Arc<World>, acknowledged: Acknowledged) {
    while let Ok(mut browser) = Browser::new(&world.ca_pem()) {
        let arrived = browser.visit(world.url("app", "/")).await;
        // The session cookie was answered, whatever became of the request after it.
        if browser.cookie(&format!("app.{}", World::DOMAIN), "_pomerium").is_some() {
            with(&acknowledged, |all| all.push(browser));
        }
        if arrived.is_err() {
            return;
        }
    }
}

fn with<T>(acknowledged: &Acknowledged, act: impl FnOnce(&mut Vec<Browser>) -> T) -> T {
    act(&mut acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
}
