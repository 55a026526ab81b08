//! What holds for every page: small, whole, readable, and safe with hostile text.

use base64::Engine as _;

use crate::demo::{APPLICATION_CSP, Account, Application, CHOOSE_ACCOUNT_CSP, Caller, ChooseAccount, SCRIPT};
use crate::*;

const REFERENCE: Reference<'_> = Reference {
    request_id: "0192f0c1-7d3e-7aa2-9f1c-5f5f0b1c2d3e",
    reason: "groups-unauthorized",
    route: "admin.example.com/reports",
    time: "2026-11-25 09:30:12 UTC",
};
const CAROL: Who<'_> = Who { name: "Carol Jones", email: Some("carol@example.com"), email_unverified: false };

fn denied<'a>() -> ErrorPage<'a> {
    ErrorPage {
        status: 403,
        sentence: "You are signed in, but this application is not open to you.",
        reference: REFERENCE,
        who: Some(CAROL),
        unmet: &["needs group admins or operations"],
        contact: Some("it-help@example.com"),
        links: Links {
            retry: None,
            other_account: Some("/.pomerium/sign_out?again=1"),
            sign_out: Some("/.pomerium/sign_out"),
        },
    }
}

fn unreachable<'a>() -> ErrorPage<'a> {
    ErrorPage {
        status: 502,
        sentence: "Postern could not reach the application behind this address.",
        reference: Reference { reason: "upstream-connect", ..REFERENCE },
        who: None,
        unmet: &[],
        contact: None,
        links: Links { retry: Some("/reports?year=2026"), ..Links::default() },
    }
}

fn not_found<'a>() -> ErrorPage<'a> {
    ErrorPage {
        status: 404,
        sentence: "No application answers at this address. Check the spelling.",
        reference: Reference { reason: "no-route", ..REFERENCE },
        links: Links::default(),
        ..unreachable()
    }
}

fn user<'a>() -> UserPage<'a> {
    UserPage {
        who: Who { name: "Alice Adams", email: Some("alice@example.com"), email_unverified: false },
        user_id: "alice",
        host: "hello.example.com",
        groups: &["admins", "engineering"],
        claims: &[("email", "alice@example.com"), ("email_verified", "true"), ("name", "Alice Adams")],
        headers: &[
            ("X-Pomerium-Jwt-Assertion", "eyJhbGciOiJFUzI1NiJ9…"),
            ("X-Pomerium-Claim-Email", "alice@example.com"),
        ],
        session: SessionTimes {
            signed_in: "2026-11-25 09:12:00 UTC",
            expires: "2026-11-25 23:12:00 UTC",
            refreshed: Some("2026-11-25 09:27:00 UTC, renewed"),
            provider: Some("https://id.example.com"),
        },
        sign_out: Some("/.pomerium/sign_out"),
    }
}

/// Every page with ordinary content.
fn all() -> Vec<(&'static str, String)> {
    vec![
        ("error_403", denied().html()),
        ("error_404", not_found().html()),
        ("error_502", unreachable().html()),
        (
            "sign_in_failed",
            SignInFailed {
                sentence: "Your identity provider did not confirm who you are.",
                provider_error: Some("access_denied"),
                provider_description: Some("The user cancelled the request."),
                reference: Reference { reason: "idp-access-denied", ..REFERENCE },
                retry: Some("https://admin.example.com/reports"),
            }
            .html(),
        ),
        (
            "sign_in_loop",
            SignInLoop {
                host: "admin.example.com",
                findings: &["The session cookie did not come back, three times within 30 seconds."],
                reference: Reference { reason: "sign-in-loop", ..REFERENCE },
                retry: Some("/reports"),
            }
            .html(),
        ),
        (
            "start_again",
            StartAgain {
                sentence: "This sign-in page was open for too long, or was used already.",
                reference: Reference { reason: "sign-in-expired", ..REFERENCE },
                onward: Onward::Wanted("https://admin.example.com/reports"),
            }
            .html(),
        ),
        ("start_again_other", astray(Onward::Other("https://admin.example.com/reports")).html()),
        ("start_again_home", astray(Onward::Home("/.pomerium/")).html()),
        ("not_signed_in", NotSignedIn { host: "admin.example.com", sign_in: Some("/.pomerium/sign_in") }.html()),
        (
            "sign_out_confirm",
            SignOutConfirm {
                who: Some(CAROL),
                action: "/.pomerium/sign_out",
                fields: &[("token", "b2s")],
                cancel: Some("/"),
            }
            .html(),
        ),
        ("signing_out", SigningOut { next: "https://id.example.com/end_session?id_token_hint=a.b.c&state=x" }.html()),
        ("signed_out", SignedOut { sign_in: Some("https://admin.example.com/") }.html()),
        ("user", user().html()),
        ("demo_choose_account", choose_account().html()),
    ]
}

fn astray(onward: Onward<'_>) -> StartAgain<'_> {
    StartAgain {
        sentence: "This sign-in was begun in another browser, or so long ago that it is forgotten.",
        reference: Reference { reason: "state-unknown", ..REFERENCE },
        onward,
    }
}

fn choose_account<'a>() -> ChooseAccount<'a> {
    let carol = Account { id: "carol", who: CAROL, note: "in no group" };
    let dave = Who { name: "Dave Diaz", email: Some("dave@example.com"), email_unverified: true };
    let accounts: &'a [Account<'a>] =
        Box::leak(Box::new([carol, Account { id: "dave", who: dave, note: "e-mail not verified" }]));
    ChooseAccount { client: "auth.localhost:8443", accounts }
}

fn application<'a>(caller: Caller<'a>) -> Application<'a> {
    Application {
        host: "hello.localhost:8443",
        caller,
        echo: true,
        headers: &[("host", "hello.localhost:8443"), ("x-pomerium-claim-email", "carol@example.com")],
        links: &[("As JSON", "/json"), ("Administrators only", "https://admin.localhost:8443/")],
    }
}

/// Every page with `text` wherever text can be given.
fn all_with(text: &str) -> Vec<(&'static str, String)> {
    let reference = Reference { request_id: text, reason: text, route: text, time: text };
    let who = Who { name: text, email: Some(text), email_unverified: true };
    let link = Some(text);
    let field = text.get(..99).unwrap_or(text);
    let values = vec![text; 500];
    let pairs = vec![(text, text); 500];
    let links = Links { retry: link, other_account: link, sign_out: link };
    let error =
        ErrorPage { status: 403, sentence: text, reference, who: Some(who), unmet: &values, contact: link, links };
    let failed =
        SignInFailed { sentence: text, provider_error: link, provider_description: link, reference, retry: link };
    let session = SessionTimes { signed_in: text, expires: text, refreshed: link, provider: link };
    let (groups, claims, headers) = (&values[..], &pairs[..], &pairs[..]);
    let user = UserPage { who, user_id: text, host: text, groups, claims, headers, session, sign_out: link };
    vec![
        ("error", error.html()),
        ("sign_in_failed", failed.html()),
        ("sign_in_loop", SignInLoop { host: text, findings: &values, reference, retry: link }.html()),
        ("start_again", StartAgain { sentence: text, reference, onward: Onward::Wanted(text) }.html()),
        ("start_again_other", astray(Onward::Other(text)).html()),
        ("start_again_home", astray(Onward::Home(text)).html()),
        ("not_signed_in", NotSignedIn { host: text, sign_in: link }.html()),
        (
            "sign_out_confirm",
            SignOutConfirm { who: Some(who), action: text, fields: &[(field, field)], cancel: link }.html(),
        ),
        ("signing_out", SigningOut { next: text }.html()),
        ("signed_out", SignedOut { sign_in: link }.html()),
        ("user", user.html()),
        ("demo_choose_account", ChooseAccount { client: text, ..choose_account() }.html()),
    ]
}

#[test]
fn every_page_looks_as_it_did() {
    for (name, html) in all() {
        // The style sheet has a test of its own; without it the snapshots show what changed.
        insta::assert_snapshot!(name, html.replace(STYLE, "…"));
    }
}

#[test]
fn the_policy_names_the_very_style_sheet_that_pages_carry() {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(hash);
    for policy in [CSP, CHOOSE_ACCOUNT_CSP, APPLICATION_CSP] {
        assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "put {hash} into style_hash");
    }
    for (name, html) in all() {
        assert_eq!(html.matches("<style>").count(), 1, "{name}");
        assert!(html.contains(&format!("<style>{STYLE}</style>")), "{name}");
    }
}

#[test]
fn the_policy_lets_no_script_no_frame_and_no_foreign_form_through() {
    for part in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(CSP.contains(part), "{part}");
    }
    assert!(!CSP.contains("script-src") && !CSP.contains("unsafe"));
}

#[test]
fn every_page_is_under_20_kilobytes_whatever_it_is_given() {
    for text in ["plain", &"long ".repeat(2000), &"<&\"'>".repeat(2000), &"漢".repeat(9000), "<"] {
        for (name, html) in all_with(text).into_iter().chain(all()) {
            assert!(html.len() < 20_000, "{name}: {} bytes", html.len());
        }
    }
}

#[test]
fn s_074_hostile_text_is_shown_escaped_and_never_as_a_link() {
    for text in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "javascript:alert(1)",
        "//evil.example/",
        "</style><script>alert(1)</script>",
        "0; url=javascript:alert(1)",
    ] {
        for (name, html) in all_with(text) {
            let shell = html.replace(STYLE, "");
            assert!(!shell.contains("<script") && !shell.contains("<img"), "{name}: {text}");
            assert!(!shell.contains("\" onmouseover") && !shell.contains("' onmouseover"), "{name}: {text}");
            assert!(!shell.contains("http-equiv"), "{name}: {text}");
            for link in shell.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(link == "/.pomerium/user" || link.starts_with("data:image/svg"), "{name}: {link}");
            }
        }
    }
}

#[test]
fn s_074_long_text_of_the_provider_is_cut() {
    let long = "x".repeat(5000);
    let page = SignInFailed {
        sentence: "No.",
        provider_error: Some(&long),
        provider_description: Some(&long),
        reference: REFERENCE,
        retry: None,
    };
    assert!(page.html().matches('x').count() < 500 + STYLE.matches('x').count());
}

#[test]
fn a_page_that_moves_on_does_so_only_to_a_safe_address() {
    let moves = |next| SigningOut { next }.html().contains("http-equiv=\"refresh\"");
    assert!(moves("https://id.example.com/end?a=b&c=d"));
    assert!(moves("/.pomerium/signed_out"));
    for next in ["javascript:alert(1)", "//evil.example", "https://id.example.com/' onload=x", "data:text/html,x"] {
        assert!(!moves(next), "{next}");
    }
}

#[test]
fn every_page_names_its_language_its_width_and_its_schemes() {
    for (name, html) in all() {
        assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"), "{name}");
        assert!(html.contains("name=\"viewport\" content=\"width=device-width, initial-scale=1\""), "{name}");
        assert!(html.contains("name=\"color-scheme\" content=\"light dark\""), "{name}");
        assert!(!html.contains("style=\"") && !html.contains("<script"), "{name}");
        assert_eq!(html.matches("<main>").count(), 1, "{name}");
    }
    for rule in [":focus-visible", "prefers-reduced-motion: reduce", "color-scheme: light dark"] {
        assert!(STYLE.contains(rule), "{rule}");
    }
}

#[test]
fn headings_are_in_order() {
    for (name, html) in all() {
        let levels = html.split("<h").skip(1).filter_map(|rest| rest.chars().next()).filter(char::is_ascii_digit);
        let levels: String = levels.collect();
        assert_eq!(levels.matches('1').count(), 1, "{name}: {levels}");
        assert!(levels.starts_with('1') && levels.chars().skip(1).all(|level| level == '2'), "{name}: {levels}");
    }
}

#[test]
fn text_has_enough_contrast_in_both_schemes() {
    let (light, dark) = STYLE.split_once("@media (prefers-color-scheme: dark)").unwrap();
    for (scheme, colours) in [("light", light), ("dark", dark)] {
        for (ink, ground) in [
            ("ink", "ground"),
            ("ink", "sheet"),
            ("quiet", "ground"),
            ("quiet", "sheet"),
            ("mark", "ground"),
            ("link", "ground"),
            ("link", "sheet"),
            ("on-act", "act"),
        ] {
            let ratio = contrast(colour(colours, ink), colour(colours, ground));
            assert!(ratio >= 4.5, "{scheme}: {ink} on {ground} is {ratio:.2}");
        }
        // WCAG 2.2, 1.4.11 and 2.4.13: what shows where a control is, and which has the focus.
        for (line, ground) in [("edge", "ground"), ("edge", "sheet"), ("focus", "ground"), ("focus", "sheet")] {
            let ratio = contrast(colour(colours, line), colour(colours, ground));
            assert!(ratio >= 3.0, "{scheme}: {line} on {ground} is {ratio:.2}");
        }
    }
}

/// The first value of a colour variable.
fn colour(css: &str, name: &str) -> [u8; 3] {
    let value = css.split(&format!("--{name}: #")).nth(1).unwrap();
    [0, 2, 4].map(|at| u8::from_str_radix(value.get(at..at + 2).unwrap(), 16).unwrap())
}

/// WCAG 2.2, contrast ratio.
fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
    let luminance = |colour: [u8; 3]| {
        let [r, g, b] = colour.map(|channel| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn the_403_page_says_who_you_are_what_is_missing_and_whom_to_ask() {
    let html = denied().html();
    for part in [
        "carol@example.com",
        "<li>Needs group admins or operations</li>",
        "Use another account",
        "Sign out",
        "it-help@example.com",
        "I have no access (403). I am signed in as carol@example.com.\nRoute: admin.example.com/reports\nReason: groups-unauthorized\nRequest: 0192f0c1-7d3e-7aa2-9f1c-5f5f0b1c2d3e\nTime: 2026-11-25 09:30:12 UTC",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
}

#[test]
fn the_sample_application_names_its_script_and_says_how_sure_it_is() {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, SCRIPT.as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(hash);
    assert!(APPLICATION_CSP.contains(&format!("script-src 'sha256-{hash}'")), "put {hash} into APPLICATION_CSP");
    let verified = application(Caller::Verified { who: CAROL, groups: &["admins"] }).html();
    assert!(verified.contains(&format!("<script>{SCRIPT}</script>")));
    assert!(verified.contains("Verified with the key set") && verified.len() < 20_000);
    insta::assert_snapshot!("demo_application", verified.replace(STYLE, "…").replace(SCRIPT, "…"));
    for caller in [Caller::Anonymous, Caller::Unverified("the signature is <wrong>")] {
        let html = application(caller).html();
        assert!(!html.contains("Verified with") && !html.contains("<wrong>"));
    }
}
