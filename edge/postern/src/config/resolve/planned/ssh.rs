//! SSH (01 §1.8).

use postern_identity::Secret;

use super::address;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::Spanned;

/// `ssh_*`.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// `ssh_address`; none: nobody listens.
    pub address: Option<String>,
    /// `ssh_host_keys` and `ssh_host_key_files`: private keys as text.
    pub host_keys: Vec<Secret<String>>,
    /// `ssh_user_ca_key(_file)`.
    pub user_ca_key: Option<Secret<String>>,
    /// `ssh_rls_enabled`: connections are counted against limits.
    pub limits: bool,
    /// `ssh_rls_additional_entries`.
    pub limit_entries: Vec<String>,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Ssh {
    let address = address(cx, settings, "ssh_address");
    let listens = settings.find("ssh_address").is_some();
    let mut host_keys: Vec<_> = settings.names(cx, "ssh_host_keys").into_iter().map(Secret::new).collect();
    for file in settings.texts(cx, "ssh_host_key_files").unwrap_or_default() {
        host_keys.extend(key_file(cx, &file, listens));
    }
    let inline = settings.filled(cx, "ssh_user_ca_key").map(|text| Secret::new(text.value));
    let file = settings.filled(cx, "ssh_user_ca_key_file");
    Ssh {
        address,
        host_keys,
        user_ca_key: file.map_or(inline, |file| key_file(cx, &file, listens)),
        limits: settings.flag(cx, "ssh_rls_enabled"),
        limit_entries: settings.names(cx, "ssh_rls_additional_entries"),
    }
}

/// A key that only its owner may read; others are not used to listen with.
fn key_file(cx: &mut Context<'_>, file: &Spanned<String>, listens: bool) -> Option<Secret<String>> {
    let key = cx.text_file(&file.at, &file.value)?;
    if listens && is_open(&file.value) {
        let what = format!("others may read the key {}", file.value);
        cx.fatal(Code::ReferencedFile, &file.at, what, format!("run `chmod 600 {}`", file.value));
    }
    Some(Secret::new(key))
}

/// Whether the group, or everybody, may do anything with a file.
fn is_open(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}
