//! The PROXY protocol, versions 1 and 2 (`use_proxy_protocol`, 01 §1.3): what stands in front of Postern says whose connection
//! it is, before the first byte of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Reads the header, and not a byte behind it. Gives the client's address; `None` if the connection is the sender's own, or its
/// client has no address.
///
/// # Errors
/// There is no header, or one that is malformed or too long; or the sender left.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    // The shortest header of either version is longer.
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE { read_binary(stream).await } else { read_line(stream, &begin).await }
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its end included.
const LINE: usize = 107;
/// The most that is read of version 2: addresses, and what some senders say beside them.
const BINARY: usize = 4096;

async fn read_line(stream: &mut (impl AsyncRead + Unpin), begin: &[u8]) -> io::Result<Option<SocketAddr>> {
    let mut line = begin.to_vec();
    // One at a time: what follows the line belongs to the connection.
    while !line.ends_with(b"\n") {
        if line.len() >= LINE || !b"PROXY ".iter().eq(line.iter().take(6)) {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or_else(malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4", source, target, from, to] => of_words::<Ipv4Addr>([source, target], [from, to]),
        ["PROXY", "TCP6", source, target, from, to] => of_words::<Ipv6Addr>([source, target], [from, to]),
        _ => Err(malformed()),
    }
}

/// The source; the target has to be an address of the same family.
fn of_words<A: std::str::FromStr + Into<IpAddr>>(
    [source, target]: [&str; 2],
    ports: [&str; 2],
) -> io::Result<Option<SocketAddr>> {
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let [Some(from), Some(_)] = ports.map(port) else { return Err(malformed()) };
    let [Ok(source), Ok(_)] = [source.parse::<A>(), target.parse::<A>()] else { return Err(malformed()) };
    Ok(Some(SocketAddr::new(source.into(), from)))
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = usize::from(stream.read_u16().await?);
    if length > BINARY {
        return Err(malformed());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (command, family) {
        // The sender's own, to see whether we are here.
        (0x20, _) => Ok(None),
        (0x21, 0x11) => of_bytes::<4>(&rest).map(|(address, port)| Some(SocketAddr::new(address.into(), port))),
        (0x21, 0x21) => of_bytes::<16>(&rest).map(|(address, port)| Some(SocketAddr::new(address.into(), port))),
        // Of no family, or a socket of the sender's machine.
        (0x21, 0x00 | 0x31) => Ok(None),
        _ => Err(malformed()),
    }
}

/// Source, target, source port, target port.
fn of_bytes<const N: usize>(rest: &[u8]) -> io::Result<([u8; N], u16)> {
    let source = rest.first_chunk::<N>().ok_or_else(malformed)?;
    let ports = rest.get(2 * N..2 * N + 4).ok_or_else(malformed)?;
    let port = ports.first_chunk::<2>().ok_or_else(malformed)?;
    Ok((*source, u16::from_be_bytes(*port)))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a header says, and what stands behind it; `None` if it is none.
    async fn told(bytes: &[u8]) -> Option<(Option<String>, Vec<u8>)> {
        let mut rest = bytes;
        let told = read(&mut rest).await.ok()?;
        Some((told.map(|address| address.to_string()), rest.to_vec()))
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn both_versions_say_whose_connection_it_is_and_what_follows_is_left() {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let with_more = [&v4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 7, 0, 8]].concat();
        for (header, address) in [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec(), Some("192.0.2.7:4711")),
            (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec(), Some("[2001:db8::7]:4711")),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n".to_vec(), Some("192.0.2.7:0")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some("192.0.2.7:4711")),
            (binary(0x21, 0x11, &with_more), Some("192.0.2.7:4711")),
            (binary(0x21, 0x21, &v6), Some("[::1]:7")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x21, 0x00, &[]), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ] {
            let expected = Some((address.map(str::to_owned), b"\x16\x03\x01".to_vec()));
            assert_eq!(told(&[&header[..], b"\x16\x03\x01"].concat()).await, expected, "{header:?}");
        }
    }

    #[tokio::test]
    async fn s_040_what_is_no_header_in_every_detail_is_refused() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "a".repeat(LINE));
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 1\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 ::1 4711 443\r\n",
            "PROXY TCP4 ::1 ::1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7",
            longest.as_str(),
        ] {
            assert_eq!(told(text.as_bytes()).await, None, "{text}");
        }
        for bytes in [
            binary(0x22, 0x11, &[0; 12]),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x21, 0x12, &[0; 12]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x21, &[0; 35]),
            binary(0x21, 0x11, &[0; BINARY + 1]),
            binary(0x21, 0x11, &[0; 12])[..20].to_vec(),
        ] {
            assert_eq!(told(&bytes).await, None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn s_115_no_bytes_end_in_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), binary in any::<bool>()) {
            let bytes = if binary { [&SIGNATURE[..], &bytes].concat() } else { [b"PROXY ", &bytes[..]].concat() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _whatever_it_is = runtime.block_on(told(&bytes));
        }
    }
}
