//! Behind something that says whose connection it is, before its first byte.

use anyhow::{Context, Result};

use crate::support::{NO_PROVIDER, Postern, Upstream, World};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x12\x67\x01\xbb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[tokio::test]
async fn the_header_says_who_asks_and_nobody_is_heard_without_one() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let there = "policy: [{ allow: { and: [{ source_ip: 192.0.2.0/24 }] } }]";
    let settings = |more: &str| format!("{NO_PROVIDER}use_proxy_protocol: true\nlog_level: debug\n{more}");
    let routes = world.route("there", &upstream.url(), &[there]);
    let postern = Postern::run(&world, &world.config(&settings(""), &routes)).await?;
    let (caller, host) = (world.caller(None)?, world.host("there"));
    let status = async |header: &[u8]| -> Result<u16> { Ok(caller.get_behind(header, ("there", &host), "/").await?.0) };
    for header in [V1, V2] {
        assert_eq!(status(header).await.with_context(|| postern.told())?, 200, "S-040 {header:?}");
        let seen = upstream.seen();
        assert_eq!(seen.last().and_then(|asked| asked.header("x-forwarded-for")), Some("192.0.2.7"), "{header:?}");
    }
    assert_eq!(status(V2_LOCAL).await?, 403, "a connection of the sender's own comes from the sender");
    for header in [&b""[..], b"PROXY TCP4 192.0.2.7 127.0.0.1 4711\r\n", b"PROXY TCP4 ::1 ::1 4711 443\r\n"] {
        assert!(status(header).await.is_err(), "{header:?}");
    }
    assert_eq!(upstream.seen().len(), 2);
    drop(postern);

    // Whom nobody named is not believed, whatever it says.
    for (peers, heard) in [("10.0.0.0/8", false), ("127.0.0.1", true)] {
        let settings = settings(&format!("xff_num_trusted_hops: 1\nxff_trusted_peers: [{peers}]\n"));
        let _postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
        assert_eq!(status(V1).await.is_ok_and(|status| status == 200), heard, "{peers}");
    }
    Ok(())
}
