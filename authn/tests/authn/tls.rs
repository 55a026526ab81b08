//! Over https, a provider is who its certificate says, by the roots of the configuration (S-070).

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{APP, World, idp};

/// A provider on `https://localhost:port` whose certificate names `name`; gives its issuer and the root to believe.
async fn provider(name: &str) -> (String, Vec<u8>) {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &root).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), metadata(&issuer)));
    (issuer, root.pem().into_bytes())
}

fn metadata(issuer: &str) -> String {
    let body = serde_json::json!({"issuer": issuer, "authorization_endpoint": format!("{issuer}/a"),
                                  "token_endpoint": format!("{issuer}/t"), "jwks_uri": format!("{issuer}/k")})
    .to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, answer: String) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let mut head = [0; 4096];
        if stream.read(&mut head).await.is_ok_and(|length| length > 0) {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }
}

/// Whether this process's trusted roots are those of a file of its own. If not, runs the test of that name in a process where
/// they are, and says whether it passed there.
#[expect(clippy::disallowed_methods, reason = "the test tells its other process by a variable")]
fn with_roots_of_its_own(test: &str) -> Option<std::path::PathBuf> {
    const OWN: &str = "SSL_CERT_FILE";
    if let Some(file) = std::env::var_os(OWN).filter(|file| file.to_string_lossy().contains(OWN_ROOTS)) {
        return Some(file.into());
    }
    let folder = tempfile::TempDir::new().unwrap();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let ended = again.args(["--exact", test]).env(OWN, folder.path().join(OWN_ROOTS)).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    None
}

const OWN_ROOTS: &str = "roots-of-a-test.pem";

#[test]
fn s_070_a_reload_takes_the_roots_of_the_system_as_they_are_by_then() {
    let test = "tls::s_070_a_reload_takes_the_roots_of_the_system_as_they_are_by_then";
    let Some(roots) = with_roots_of_its_own(test) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ((issuer, root), (_, other_root)) = (provider("localhost").await, provider("localhost").await);
        std::fs::write(&roots, &other_root).unwrap();
        let world = World::with(|config| config.idps = vec![idp("main", &issuer)]).await;
        let mut browser = world.browser();
        let there = world.send_to_sign_in(&mut browser, APP);
        browser.get(&there).await.is_refused(503, "idp-unreachable");

        std::fs::write(&roots, &root).unwrap();
        world.authn.reload(world.config.clone()).unwrap();
        let begun = browser.get(&there).await;
        assert!(
            begun.location().is_some_and(|there| there.as_str().starts_with(&format!("{issuer}/a?"))),
            "{}",
            begun.body
        );

        std::fs::write(&roots, &other_root).unwrap();
        world.authn.reload(world.config.clone()).unwrap();
        browser.get(&there).await.is_refused(503, "idp-unreachable");
    });
}

async fn begin(issuer: &str, roots: Option<Vec<u8>>) -> crate::support::Arrived {
    let world = World::with(|config| {
        config.idps = vec![idp("main", issuer)];
        config.extra_roots = roots;
    })
    .await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in(&mut browser, APP);
    browser.get(&there).await
}

#[tokio::test]
async fn s_070_a_provider_is_believed_by_the_configured_roots_and_its_name() {
    let (issuer, root) = provider("localhost").await;
    let begun = begin(&issuer, Some(root)).await;
    assert!(begun.location().unwrap().as_str().starts_with(&format!("{issuer}/a?")), "{}", begun.body);
    begin(&issuer, None).await.is_refused(503, "idp-unreachable");
    let (_, other_root) = provider("localhost").await;
    begin(&issuer, Some(other_root)).await.is_refused(503, "idp-unreachable");
    let (misnamed, root) = provider("idp.example").await;
    begin(&misnamed, Some(root)).await.is_refused(503, "idp-unreachable");
}
