//! Where identity tokens for serverless upstreams come from (01 §1.8).

use url::Url;

use super::authenticate::is_loopback;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::decode_base64;
use crate::google::{Account, Google};

const KEY: &str = "google_cloud_serverless_authentication_service_account";
/// The metadata server of every machine of Google's.
const METADATA: &str = "169.254.169.254";

/// The account of the file; without one, the machine's own, which its metadata server speaks for. `GCE_METADATA_HOST` names
/// another one, as for Google's own libraries.
pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Google {
    let metadata = cx.environment.get("GCE_METADATA_HOST").map_or(METADATA, |host| host.expose().as_str()).to_owned();
    Google { metadata, account: account(cx, settings) }
}

/// JSON, or base64 of it.
fn account(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Account> {
    let text = settings.filled(cx, KEY)?;
    let decoded = decode_base64(text.value.trim()).and_then(|bytes| String::from_utf8(bytes).ok());
    let account = Account::parse(decoded.as_deref().unwrap_or(&text.value)).and_then(|account| {
        let safe = |url: &Url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url));
        if safe(&account.token_uri) { Ok(account) } else { Err("its `token_uri` is not https") }
    });
    match account {
        Ok(account) => Some(account),
        Err(why) => {
            let what = format!("this is no service account that tokens can be had with: {why}");
            let hint = "give the key file that Google made, with `base64 -w0 KEY.json`";
            cx.fatal(Code::BadSecret, &text.at, what, hint);
            None
        }
    }
}
