//! What Postern promises, tried from outside: the real binary, real sockets, a real provider and a real browser.
//!
//! One module per promise. Each test builds its own [`World`](support::World); none depends on another, none sleeps:
//! it waits for a condition, with a deadline. `docs/guides/testing.md` says how to run and extend them.

#[expect(dead_code, unused_imports, reason = "the promises that use it follow")]
mod support;
mod tools;
