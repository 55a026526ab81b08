//! One contract, run against every backend.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at the first thing that is not as promised"
)]

mod support;

use postern_storage::{Lookup, Once};
use support::{World, at, session, tokens};

/// One test for each backend.
macro_rules! contract {
    ($($(#[$doc:meta])* async fn $name:ident($world:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn promise($world: World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_memory() {
                promise(World::memory()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_a_file() {
                promise(World::file()).await;
            }
        }
    )*};
}

contract! {
    async fn what_was_created_is_found_with_its_tokens(world) {
        let (session, sessions) = (session(1, "alice"), world.storage.sessions());
        sessions.create(&session, &tokens("a")).await.unwrap();
        let Lookup::Found(found) = sessions.load(&session.handle, at(1)).await.unwrap() else { panic!("not found") };
        assert_eq!(*found, session);
        let found = sessions.tokens(&session.handle).await.unwrap().unwrap();
        assert_eq!(found.access.expose(), "access-a");
        assert_eq!(found.refresh.unwrap().expose(), "refresh-a");
        assert!(sessions.spend(Once::Ticket, b"t", at(1), at(9)).await.unwrap());
        assert!(!sessions.spend(Once::Ticket, b"t", at(1), at(9)).await.unwrap());
    }
}
