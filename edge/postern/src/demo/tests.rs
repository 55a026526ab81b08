//! The data folder of the demonstration over its life.

use super::*;

fn options(home: &tempfile::TempDir) -> Options {
    // As the first line of `main` does; only a second installation can fail.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Options { port: 0, dir: home.path().join("demo") }
}

async fn prepared(home: &tempfile::TempDir) -> Prepared {
    prepare(options(home)).await.unwrap()
}

fn config(prepared: &Prepared) -> String {
    std::fs::read_to_string(&prepared.config_path).unwrap()
}

#[tokio::test]
async fn everything_but_a_taken_port_survives_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let first = prepared(&home).await;
    let (text, port) = (config(&first), first.port);
    let kept = |name: &str| std::fs::read_to_string(home.path().join("demo").join(name)).unwrap();
    let names = ["ca.pem", "server.pem", "shared-secret", "cookie-secret", "client-secret", "idp-key.pem"];
    let before = names.map(kept);
    drop(first);
    let second = prepare(Options { port, ..options(&home) }).await.unwrap();
    assert_eq!(config(&second), text);
    assert_eq!(names.map(kept), before);
}

#[tokio::test]
async fn a_taken_port_of_the_provider_is_replaced_in_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let first = prepared(&home).await;
    let issuer = |text: &str| text.lines().find(|line| line.starts_with("idp_provider_url")).unwrap().to_owned();
    let before = issuer(&config(&first));
    drop(first);
    let port: u16 = before.rsplit(':').next().unwrap().parse().unwrap();
    let _squatter = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_ne!(issuer(&config(&prepared(&home).await)), before);
}

#[tokio::test]
async fn a_taken_port_of_the_edge_is_an_error_that_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let squatter = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = squatter.local_addr().unwrap().port();
    let error = prepare(Options { port, ..options(&home) }).await.unwrap_err();
    assert!(error.to_string().contains("--port"), "{error}");
}

#[tokio::test]
async fn every_file_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let prepared = prepared(&home).await;
    for entry in std::fs::read_dir(prepared.dir()).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn a_foreign_folder_is_refused() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("demo")).unwrap();
    std::fs::write(home.path().join("demo/letter.txt"), "Dear Ann").unwrap();
    assert!(matches!(prepare(options(&home)).await, Err(DemoError::Foreign(_))));
}

#[tokio::test]
async fn provider_and_application_end_when_told() {
    let home = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let prepared = prepared(&home).await;
    let dir = prepared.dir().to_owned();
    let running = prepared.spawn(&shutdown);
    shutdown.cancel();
    running.stopped().await;
    assert!(Folder::open(&dir).is_ok(), "the folder is free again");
}

#[test]
fn the_folder_follows_xdg_then_home() {
    let dir = |xdg, home| default_dir(xdg, home).map(|path| path.to_string_lossy().into_owned());
    assert_eq!(dir(Some("/data"), Some("/home/ann")).as_deref(), Some("/data/postern/demo"));
    assert_eq!(dir(Some("relative"), Some("/home/ann")).as_deref(), Some("/home/ann/.local/share/postern/demo"));
    assert_eq!(dir(None, None), None);
}

#[tokio::test]
async fn what_it_writes_runs_without_a_single_problem() {
    let home = tempfile::tempdir().unwrap();
    let prepared = prepared(&home).await;
    let source = crate::config::Source { file: Some(prepared.config_path), lenient: false };
    let nothing = crate::config::Environment::of(Vec::<(String, String)>::new()).unwrap();
    let loaded = crate::config::load(&source, &nothing);
    let problems: Vec<_> = loaded.problems.iter().collect();
    assert!(problems.is_empty(), "{problems:#?}");
    assert_eq!(loaded.config.unwrap().edge.routes.len(), 7);
}
