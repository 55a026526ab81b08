//! How pages look (01 §1.10).

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

/// Colours, pictures and words of pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Branding {
    /// `primary_color`, as `#rrggbb`.
    pub primary: Option<String>,
    /// `secondary_color`.
    pub secondary: Option<String>,
    /// `darkmode_primary_color`.
    pub dark_primary: Option<String>,
    /// `darkmode_secondary_color`.
    pub dark_secondary: Option<String>,
    /// `logo_url`.
    pub logo: Option<String>,
    /// `favicon_url`.
    pub favicon: Option<String>,
    /// `error_message_first_paragraph`.
    pub first_paragraph: Option<String>,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Branding {
    Branding {
        primary: colour(cx, settings, "primary_color"),
        secondary: colour(cx, settings, "secondary_color"),
        dark_primary: colour(cx, settings, "darkmode_primary_color"),
        dark_secondary: colour(cx, settings, "darkmode_secondary_color"),
        logo: picture(cx, settings, "logo_url"),
        favicon: picture(cx, settings, "favicon_url"),
        first_paragraph: settings.filled(cx, "error_message_first_paragraph").map(|text| text.value),
    }
}

/// `#rgb` or `#rrggbb`, made the longer one.
fn colour(cx: &mut Context<'_>, settings: &Block<'_>, key: &str) -> Option<String> {
    let text = settings.filled(cx, key)?;
    let digits = text.value.trim().trim_start_matches('#').to_ascii_lowercase();
    let hex = digits.chars().all(|digit| digit.is_ascii_hexdigit());
    match digits.len() {
        6 if hex => Some(format!("#{digits}")),
        3 if hex => Some(digits.chars().fold("#".to_owned(), |colour, digit| format!("{colour}{digit}{digit}"))),
        _ => {
            let what = format!("{} is no colour", quoted(&text.value));
            cx.fatal(Code::WrongType, &text.at, what, "write it in quotes, as `\"#6f43e7\"`");
            None
        }
    }
}

/// Where a picture is: anywhere on the web, on the same host, or in the text itself.
pub(super) fn picture(cx: &mut Context<'_>, block: &Block<'_>, key: &str) -> Option<String> {
    let text = block.filled(cx, key)?;
    let known = ["https://", "http://", "/", "data:image/"];
    if !known.iter().any(|begin| text.value.starts_with(begin)) || text.value.contains(char::is_whitespace) {
        let what = format!("{} is no address of a picture", quoted(&text.value));
        cx.fatal(Code::BadUrl, &text.at, what, "write an https URL, a path, or `data:image/...`");
        return None;
    }
    Some(text.value)
}
