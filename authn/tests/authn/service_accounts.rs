//! Service accounts, as authn makes and ends them (02 §4.3).

use std::time::Duration;

use postern_authn::{MOST_SERVICE_ACCOUNTS, ServiceAccountError};
use postern_identity::{NEVER, SERVICE_ACCOUNT, ServiceAccountToken, Session, User};
use postern_storage::Lookup;
use url::Url;

use crate::support::{APP, AUTHN, World, log, now};

fn ci() -> User {
    User { id: "ci".to_owned(), issuer: "https://somebody.example".to_owned(), ..User::default() }
}

async fn made(world: &World, life: Option<Duration>) -> (Session, String) {
    world.authn.create_service_account(ci(), life, now()).await.unwrap()
}

#[tokio::test]
async fn a_service_account_has_no_tokens_no_provider_and_the_end_that_was_said() {
    let world = World::new().await;
    let day = Duration::from_secs(24 * 3600);
    for life in [None, Some(day), Some(Duration::MAX)] {
        let (account, token) = made(&world, life).await;
        let end = life.filter(|life| *life == day).map_or(NEVER, |life| account.issued_at.plus(life));
        assert_eq!((account.expires_at, account.idle), (end, None));
        assert_eq!((account.user.issuer.as_str(), account.is_service_account()), (SERVICE_ACCOUNT, true));
        let id = ServiceAccountToken::open(&world.keyring, token.as_bytes()).unwrap();
        assert_eq!(id.handle(&world.keyring), account.handle);
        let Ok(Lookup::Found(found)) = world.sessions.load(&account.handle, now()).await else { panic!("not there") };
        assert_eq!(*found, account);
        let tokens = world.sessions.tokens(&account.handle).await.unwrap().unwrap();
        assert!(tokens.access.expose().is_empty() && tokens.refresh.is_none() && tokens.id_token.expose().is_empty());
        assert!(!log().contains(&token), "s_108");
    }
    world.authn.refresh_due(NEVER).await;
    assert_eq!(world.sessions.list(SERVICE_ACCOUNT, "ci", now()).await.unwrap().len(), 3, "no refresh ends one");
}

#[tokio::test]
async fn s_096_authn_knows_no_service_account_by_a_cookie() {
    let world = World::new().await;
    let (_, token) = made(&world, None).await;
    for (host, name) in [(APP, "_pomerium"), (AUTHN, "_pomerium_authenticate")] {
        let url = Url::parse(&format!("{host}/.pomerium/")).unwrap();
        let mut browser = world.browser();
        browser.put_cookie(host, name, &token);
        let answer = browser.get(&url).await;
        assert_eq!(answer.status, 401, "{host}");
    }
}

#[tokio::test]
async fn s_095_a_users_service_accounts_end_together_and_are_not_more_than_can_be_found() {
    let world = World::new().await;
    for _ in 0..MOST_SERVICE_ACCOUNTS {
        made(&world, None).await;
    }
    let more = world.authn.create_service_account(ci(), None, now()).await;
    assert!(matches!(more, Err(ServiceAccountError::TooMany)), "{more:?}");
    let other = User { id: "cd".to_owned(), ..ci() };
    let (other, _) = world.authn.create_service_account(other, None, now()).await.unwrap();
    assert_eq!(world.authn.end_service_accounts("ci", now()).await.unwrap(), MOST_SERVICE_ACCOUNTS);
    assert!(world.sessions.list(SERVICE_ACCOUNT, "ci", now()).await.unwrap().is_empty());
    assert!(matches!(world.sessions.load(&other.handle, now()).await, Ok(Lookup::Found(_))));
    assert_eq!(world.authn.end_service_accounts("ci", now()).await.unwrap(), 0);
}

#[tokio::test]
async fn s_095_one_that_is_made_right_after_the_end_of_everything_lives() {
    let world = World::new().await;
    let (before, _) = made(&world, None).await;
    world.authn.end_all(now()).await.unwrap();
    assert!(matches!(world.sessions.load(&before.handle, now()).await, Ok(Lookup::Revoked)));
    let (after, _) = made(&world, None).await;
    assert!(matches!(world.sessions.load(&after.handle, after.issued_at).await, Ok(Lookup::Found(_))));
}
