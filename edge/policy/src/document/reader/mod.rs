//! Text -> [`Node`]: YAML 1.2 (and so JSON), with places, within a budget.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StructureStyle, Tag};

use super::{Entry, Mistake, Node, Place, Value, mistake, scalar};

/// The longest text that is read.
pub const MAX_BYTES: usize = 16 << 20;
/// The most values that a document may have once its aliases are written out.
pub const MAX_NODES: usize = 2_000_000;
/// How deeply maps and lists may nest.
pub const MAX_DEPTH: usize = 64;

/// Reads one YAML or JSON document; an empty text is [`Value::Null`].
///
/// # Errors
/// Every mistake up to the first that makes the rest unreadable.
pub fn read(text: &str) -> Result<Node, Vec<Mistake>> {
    if text.len() > MAX_BYTES {
        let message = format!("the text is larger than {} MB", MAX_BYTES >> 20);
        return Err(vec![Mistake::at(Place::default(), message).hint("split it, or remove what is repeated")]);
    }
    let mut reader = Reader::new(text);
    if let Err(mistake) = reader.read() {
        reader.mistakes.push(mistake);
    }
    if reader.mistakes.is_empty() {
        Ok(reader.root.unwrap_or(Node { place: Place { line: 1, column: 1, length: 1 }, value: Value::Null }))
    } else {
        Err(reader.mistakes)
    }
}

pub(super) fn too_deep(place: Place) -> Mistake {
    Mistake::at(place, format!("maps and lists nest more than {MAX_DEPTH} deep")).hint("write it flatter")
}

struct Reader<'t> {
    text: &'t str,
    /// Collections that have begun and not yet ended, the innermost last.
    open: Vec<Open>,
    /// Completed nodes that carry an anchor.
    anchors: HashMap<usize, (Node, Weight)>,
    spent: Weight,
    root: Option<Node>,
    mistakes: Vec<Mistake>,
}

/// A collection of which the end has not come yet.
struct Open {
    start: Marker,
    /// Written with brackets.
    flow: bool,
    anchor: usize,
    body: Body,
}

enum Body {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<Key>, merges: Vec<(Place, Node)> },
}

/// A key of which the value has not come yet.
struct Key {
    text: String,
    place: Place,
    /// It is a plain `<<`.
    merge: bool,
}

/// What a node costs: memory, and stack when it is walked.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Weight {
    fn of(node: &Node) -> Self {
        let text = |bytes| Self { nodes: 1, bytes, depth: 0 };
        match &node.value {
            Value::Null | Value::Bool(_) => text(0),
            Value::Number { text: digits, .. } => text(digits.len()),
            Value::String(string) => text(string.len()),
            Value::List(nodes) => nodes.iter().fold(Self::COLLECTION, |sum, node| sum.holding(Self::of(node), 0)),
            Value::Map(entries) => {
                entries.iter().fold(Self::COLLECTION, |sum, entry| sum.holding(Self::of(&entry.value), entry.key.len()))
            }
        }
    }

    const COLLECTION: Self = Self { nodes: 1, bytes: 0, depth: 1 };

    fn holding(self, inner: Self, key: usize) -> Self {
        Self {
            nodes: self.nodes + inner.nodes,
            bytes: self.bytes + inner.bytes + key,
            depth: self.depth.max(inner.depth + 1),
        }
    }
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            open: Vec::new(),
            anchors: HashMap::new(),
            spent: Weight::default(),
            root: None,
            mistakes: Vec::new(),
        }
    }

    fn read(&mut self) -> Result<(), Mistake> {
        let options = granit_parser::options! { emit_comments: false };
        for event in Parser::new_from_str_with_options(self.text, options) {
            let (event, span) = event.map_err(|error| self.syntax(&error))?;
            self.take(event, span)?;
        }
        Ok(())
    }

    fn syntax(&self, error: &ScanError) -> Mistake {
        let mistake = mistake::of_syntax(self.place(Span::empty(*error.marker())), error.kind());
        match self.open.last() {
            Some(open) if open.flow && open.start.line() < error.marker().line() => {
                let bracket = if matches!(open.body, Body::List(_)) { '[' } else { '{' };
                let Place { line, column, .. } = self.place(Span::empty(open.start));
                mistake
                    .hint(format!("the `{bracket}` at line {line}, column {column} is still open here; close it first"))
            }
            _ => mistake,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's list is open; the rest carries no data")]
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(Mistake::at(self.place(span), "a second document begins here")
                    .hint("keep one document in a file; remove the `---` line"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let place = self.place(span);
                let plain = style == ScalarStyle::Plain;
                let value = self.scalar(&text, plain, tag.as_deref(), place);
                self.complete(Node { place, value }, anchor, plain)
            }
            Event::SequenceStart(style, anchor, tag) => {
                let (flow, body) = (style == StructureStyle::Flow, Body::List(Vec::new()));
                self.begin(Open { start: span.start, flow, anchor, body }, tag.as_deref())
            }
            Event::MappingStart(style, anchor, tag) => {
                let body = Body::Map { entries: Vec::new(), key: None, merges: Vec::new() };
                self.begin(
                    Open { start: span.start, flow: style == StructureStyle::Flow, anchor, body },
                    tag.as_deref(),
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, tag: Option<&Tag>) -> Result<(), Mistake> {
        let place = self.place(Span::empty(open.start));
        let expected = if matches!(open.body, Body::List(_)) { "seq" } else { "map" };
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema_tag(expected)) {
            self.mistakes.push(unknown_tag(place));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self, span: Span) -> Result<(), Mistake> {
        let Some(Open { start, anchor, body, .. }) = self.open.pop() else { return Ok(()) };
        let place = self.place(Span::new(start, span.end));
        let value = match body {
            Body::List(nodes) => Value::List(nodes),
            Body::Map { entries, merges, .. } => Value::Map(self.unique(entries, merges)),
        };
        self.complete(Node { place, value }, anchor, false)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Mistake> {
        let place = self.place(span);
        let Some((_, weight)) = self.anchors.get(&anchor) else {
            return Err(Mistake::at(place, "this alias stands inside of what it refers to")
                .hint("a value cannot contain itself; write it out"));
        };
        let weight = *weight;
        if self.open.len() + weight.depth > MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.spend(weight, place)?;
        match self.anchors.get(&anchor) {
            Some((node, _)) => {
                let value = node.value.clone();
                self.place_node(Node { place, value }, false);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A node is complete: remembers it if it has an anchor, then puts it where it belongs.
    fn complete(&mut self, node: Node, anchor: usize, plain: bool) -> Result<(), Mistake> {
        let own = match &node.value {
            Value::String(text) | Value::Number { text, .. } => text.len(),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => 0,
        };
        self.spend(Weight { nodes: 1, bytes: own, depth: 0 }, node.place)?;
        if anchor != 0 {
            let weight = Weight::of(&node);
            self.spend(weight, node.place)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        self.place_node(node, plain);
        Ok(())
    }

    fn spend(&mut self, weight: Weight, place: Place) -> Result<(), Mistake> {
        self.spent.nodes += weight.nodes;
        self.spent.bytes += weight.bytes;
        if self.spent.nodes > MAX_NODES || self.spent.bytes > 2 * MAX_BYTES {
            return Err(Mistake::at(place, "the document is too large once its aliases are written out")
                .hint("use fewer aliases, or fewer values"));
        }
        Ok(())
    }

    fn place_node(&mut self, node: Node, plain: bool) {
        match self.open.last_mut().map(|open| &mut open.body) {
            None => self.root = Some(node),
            Some(Body::List(nodes)) => nodes.push(node),
            Some(Body::Map { entries, key, merges }) => match key.take() {
                None => match key_of(&node, plain) {
                    Ok(new) => *key = Some(new),
                    Err(mistake) => {
                        self.mistakes.push(mistake);
                        *key = Some(Key { text: String::new(), place: node.place, merge: false });
                    }
                },
                Some(Key { place, merge: true, .. }) => merges.push((place, node)),
                Some(Key { text, place, merge: false }) => {
                    entries.push(Entry { key: text, key_place: place, value: node });
                }
            },
        }
    }

    /// The entries with each key once, and what the merge key brings (YAML 1.1 merge type): own keys win, then earlier maps.
    fn unique(&mut self, entries: Vec<Entry>, merges: Vec<(Place, Node)>) -> Vec<Entry> {
        let mut seen: HashMap<String, Place> = HashMap::with_capacity(entries.len());
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(first) = seen.get(&entry.key) {
                self.mistakes.push(twice(&entry.key, entry.key_place, *first));
            } else {
                seen.insert(entry.key.clone(), entry.key_place);
                kept.push(entry);
            }
        }
        let mut merges = merges.into_iter();
        if let Some((first, source)) = merges.next() {
            for entry in self.merged(source) {
                if !seen.contains_key(&entry.key) {
                    seen.insert(entry.key.clone(), entry.key_place);
                    kept.push(entry);
                }
            }
            self.mistakes.extend(
                merges.map(|(second, _)| twice("<<", second, first).hint("write one `<<` with a list: `<<: [*a, *b]`")),
            );
        }
        kept
    }

    fn merged(&mut self, source: Node) -> Vec<Entry> {
        let sources = if let Value::List(nodes) = source.value { nodes } else { vec![source] };
        let mut entries = Vec::new();
        for node in sources {
            match node.value {
                Value::Map(inner) => entries.extend(inner),
                Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) | Value::List(_) => {
                    self.mistakes.push(
                        Mistake::at(node.place, format!("`<<` takes a map or a list of maps, not {}", node.kind()))
                            .hint("write `<<: *name`, where `&name` marks a map"),
                    );
                }
            }
        }
        entries
    }

    fn scalar(&mut self, text: &str, plain: bool, tag: Option<&Tag>, place: Place) -> Value {
        let is_text = match tag {
            None => !plain,
            Some(tag) if tag.is_yaml_core_schema_tag("str") => true,
            Some(tag) => return self.tagged(text, tag, place),
        };
        if is_text {
            return Value::String(text.to_owned());
        }
        if scalar::is_not_finite(text) {
            self.mistakes.push(
                Mistake::at(place, format!("`{text}` is not a number that can be used"))
                    .hint("write a finite number, or put the text in quotes"),
            );
        }
        scalar::plain(text)
    }

    fn tagged(&mut self, text: &str, tag: &Tag, place: Place) -> Value {
        let value = scalar::plain(text);
        let fits = tag.core_suffix().is_some_and(|suffix| match value {
            Value::Null => suffix == "null",
            Value::Bool(_) => suffix == "bool",
            Value::Number { ref value, .. } => suffix == "float" || suffix == "int" && !value.is_f64(),
            Value::String(_) | Value::List(_) | Value::Map(_) => false,
        });
        if !fits {
            self.mistakes.push(unknown_tag(place));
        }
        value
    }

    /// The place of a span; of a span over several lines, the part on its first line.
    fn place(&self, span: Span) -> Place {
        let length = if span.start.line() == span.end.line() {
            span.end.index().saturating_sub(span.start.index())
        } else {
            self.rest_of_line(span.start).trim_end().chars().count()
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { line: count(span.start.line()), column: count(span.start.col() + 1), length: count(length).max(1) }
    }

    /// Costs the length of the line, so it is asked only where a span leaves its line: once a line and level of nesting.
    fn rest_of_line(&self, start: Marker) -> &str {
        let rest = start.byte_offset().and_then(|offset| self.text.get(offset..)).unwrap_or_default();
        rest.split(['\n', '\r']).next().unwrap_or_default()
    }
}

fn key_of(node: &Node, plain: bool) -> Result<Key, Mistake> {
    let text = match (&node.value, node.as_text()) {
        (_, Some(text)) => text.into_owned(),
        (Value::Null, None) => {
            return Err(Mistake::at(node.place, "a key is missing before this `:`").hint("write `key: value`"));
        }
        (_, None) => {
            return Err(Mistake::at(node.place, format!("a key must be text, not {}", node.kind()))
                .hint("write `key: value`; a text that begins with `[` or `{` needs quotes"));
        }
    };
    Ok(Key { merge: plain && text == "<<", text, place: node.place })
}

fn twice(key: &str, place: Place, first: Place) -> Mistake {
    Mistake::at(
        place,
        format!("key `{key}` stands twice in one map, first at line {}, column {}", first.line, first.column),
    )
    .hint("keep one of the two")
}

fn unknown_tag(place: Place) -> Mistake {
    Mistake::at(place, "the tag before this value is not known, or does not fit it")
        .hint("remove the tag; a text that begins with `!` needs quotes")
}

#[cfg(test)]
mod tests;
