//! Reads forms out of a page, as far as the pages of this product and of the test provider go.

/// A form that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) method: String,
    pub(crate) action: String,
    /// Names and values of inputs and buttons, in order.
    pub(crate) fields: Vec<(String, String)>,
    /// The text of its buttons.
    pub(crate) buttons: Vec<String>,
}

/// Every form of the page; a button outside that names its form by `form=` belongs to it.
pub(crate) fn forms(html: &str) -> Vec<Form> {
    let mut found: Vec<(Option<String>, Form)> = Vec::new();
    let mut inside = false;
    for tag in tags(html) {
        match tag.name {
            "form" => {
                let text = |name| tag.attribute(name).unwrap_or_default();
                let method = tag.attribute("method").unwrap_or_else(|| "get".into()).to_ascii_lowercase();
                found.push((
                    tag.attribute("id"),
                    Form { method, action: text("action"), fields: Vec::new(), buttons: Vec::new() },
                ));
                inside = true;
            }
            "/form" => inside = false,
            "input" | "button" => {
                let owner = tag.attribute("form");
                let target = match owner {
                    Some(id) => found.iter_mut().find(|(form, _)| form.as_ref() == Some(&id)),
                    None if inside => found.last_mut(),
                    None => None,
                };
                let Some((_, form)) = target else { continue };
                if tag.name == "button" {
                    form.buttons.push(tag.text.trim().to_owned());
                }
                if let Some(name) = tag.attribute("name") {
                    form.fields.push((name, tag.attribute("value").unwrap_or_default()));
                }
            }
            _ => {}
        }
    }
    found.into_iter().map(|(_, form)| form).collect()
}

/// Where the page goes on by itself.
pub(crate) fn refresh(html: &str) -> Option<String> {
    let is_refresh =
        |tag: &Tag<'_>| tag.attribute("http-equiv").is_some_and(|name| name.eq_ignore_ascii_case("refresh"));
    let content = tags(html).into_iter().find(|tag| tag.name == "meta" && is_refresh(tag))?.attribute("content")?;
    content.split_once("url=").map(|(_, target)| target.to_owned())
}

struct Tag<'a> {
    name: &'a str,
    attributes: &'a str,
    /// What stands between it and the next tag.
    text: &'a str,
}

impl Tag<'_> {
    fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.attributes;
        while let Some((name, after)) = rest.split_once('=') {
            let name = name.split_whitespace().last().unwrap_or_default();
            let after = after.trim_start();
            let quote = after.chars().next().filter(|first| "\"'".contains(*first));
            let (value, next) = match quote {
                Some(quote) => after.trim_start_matches(quote).split_once(quote).unwrap_or((after, "")),
                None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            if name.eq_ignore_ascii_case(wanted) {
                return Some(unescape(value));
            }
            rest = next;
        }
        None
    }
}

fn tags(html: &str) -> Vec<Tag<'_>> {
    let pieces = html.split('<').skip(1);
    let parsed = pieces.filter_map(|piece| {
        let (tag, text) = piece.split_once('>')?;
        let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        Some(Tag { name, attributes: attributes.trim_end_matches('/'), text })
    });
    parsed.collect()
}

fn unescape(text: &str) -> String {
    let entities = [
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#38;", "&"),
        ("&#x27;", "'"),
    ];
    let text = entities.iter().fold(text.to_owned(), |text, (entity, plain)| text.replace(entity, plain));
    text.replace("&amp;", "&")
}
