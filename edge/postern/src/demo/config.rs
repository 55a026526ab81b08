//! The `config.yaml` of the demonstration.

use super::folder::{Folder, Mark};
use super::{DemoError, certificates, hosts};

/// The file's name in the data folder.
pub(super) const FILE: &str = "config.yaml";
/// `client_id` at the demonstration's provider.
pub(super) const CLIENT_ID: &str = "postern-demo";
/// File names of secrets in the data folder.
pub(super) const SHARED_SECRET: &str = "shared-secret";
pub(super) const COOKIE_SECRET: &str = "cookie-secret";
pub(super) const CLIENT_SECRET: &str = "client-secret";

/// The text of the file.
pub(super) fn text(folder: &Folder, port: u16, mark: Mark) -> Result<String, DemoError> {
    let path = |name: &str| quoted(folder, name);
    let Mark { idp_port, app_port, health_port, metrics_port, .. } = mark;
    let url = |host: &str| format!("https://{host}.localhost:{port}");
    let head = format!(
        r#"# Written by `postern demo` at every start: copy it before you change it.
# `postern run --config` takes it too; the provider and the application run with `postern demo` alone.
address: 127.0.0.1:{port}
health_check_addr: 127.0.0.1:{health_port}
metrics_address: 127.0.0.1:{metrics_port}

certificates:
  - cert: {certificate}
    key: {key}

authenticate_service_url: {authenticate}
idp_provider: oidc
idp_provider_url: http://127.0.0.1:{idp_port}
idp_client_id: {CLIENT_ID}
idp_client_secret_file: {client_secret}

shared_secret_file: {shared_secret}
cookie_secret_file: {cookie_secret}

databroker_storage_type: file
databroker_storage_connection_string: {store}

# What applications are told: a signed assertion, and some of its claims in plain headers.
pass_identity_headers: true
jwt_claims_headers:
  X-Pomerium-Claim-Email: email
  X-Pomerium-Claim-Groups: groups
  X-Pomerium-Claim-Name: name
"#,
        certificate = path(certificates::CERTIFICATE)?,
        key = path(certificates::KEY)?,
        authenticate = url(hosts::AUTHENTICATE),
        client_secret = path(CLIENT_SECRET)?,
        shared_secret = path(SHARED_SECRET)?,
        cookie_secret = path(COOKIE_SECRET)?,
        store = json(&format!("file://{}", folder.file("store").display())),
    );
    Ok(head + &routes(app_port, port))
}

fn routes(app_port: u16, port: u16) -> String {
    let from = |host: &str| format!("https://{host}.localhost:{port}");
    let to = format!("http://127.0.0.1:{app_port}");
    format!(
        r#"
routes:
  # Anybody with a verified address of the company.
  - from: {hello}
    to: {to}
    preserve_host_header: true
    show_error_details: true
    policy:
      - allow:
          and:
            - domain:
                is: example.com

  # Everybody, signed in or not.
  - from: {public}
    to: {to}
    preserve_host_header: true
    allow_public_unauthenticated_access: true

  # One group.
  - from: {admin}
    to: {to}
    preserve_host_header: true
    show_error_details: true
    policy:
      - allow:
          and:
            - domain:
                is: example.com
            - groups:
                has: admins

  # Two groups, and a deny rule that holds for them as well.
  - from: {engineering}
    to: {to}
    preserve_host_header: true
    show_error_details: true
    policy:
      - allow:
          or:
            - groups:
                has: engineering
            - groups:
                has: admins
      - deny:
          and:
            - http_path:
                starts_with: /closed

  # WebSockets pass where a route says so.
  - from: {ws}
    to: {to}
    preserve_host_header: true
    allow_websockets: true
    show_error_details: true
    policy:
      - allow:
          and:
            - domain:
                is: example.com

  # A redirect.
  - from: {go}
    redirect:
      host_redirect: hello.localhost:{port}
      response_code: 302
    allow_public_unauthenticated_access: true

  # A fixed answer.
  - from: {status}
    response:
      status: 200
      body: "All is well.\n"
    allow_public_unauthenticated_access: true
"#,
        hello = from(hosts::HELLO),
        public = from(hosts::PUBLIC),
        admin = from(hosts::ADMIN),
        engineering = from(hosts::ENGINEERING),
        ws = from(hosts::WS),
        go = from(hosts::GO),
        status = from(hosts::STATUS),
    )
}

fn quoted(folder: &Folder, name: &str) -> Result<String, DemoError> {
    let path = folder.file(name);
    path.to_str().map(json).ok_or(DemoError::Unwritable(path.clone()))
}

/// JSON strings are YAML strings, whatever is in them.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
