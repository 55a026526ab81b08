//! Verified statements about a subject, in the flat form that policy reads (01 §3.3).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Claims by name. Every value is a list; nested objects are flattened with dots (`address.country`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(BTreeMap<String, Vec<Value>>);

impl Claims {
    /// Flattens a JSON object: scalars become one-element lists, lists stay, objects become dotted names, nulls go away.
    #[must_use]
    pub fn flatten(object: &Map<String, Value>) -> Self {
        let mut flat = BTreeMap::new();
        flatten_into(&mut flat, "", object, 0);
        Self(flat)
    }

    /// The values of the claim of exactly that flat name; `None` if there is no such claim.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&[Value]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Sets a claim, replacing its former values.
    pub fn set(&mut self, name: impl Into<String>, values: Vec<Value>) {
        self.0.insert(name.into(), values);
    }

    /// All claims in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Value])> {
        self.0.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Whether there is no claim at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Deeper objects than this are dropped: claims come from outside, and the stack is finite.
const MAX_DEPTH: usize = 8;

fn flatten_into(flat: &mut BTreeMap<String, Vec<Value>>, prefix: &str, object: &Map<String, Value>, depth: usize) {
    for (key, value) in object {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Null => {}
            Value::Object(inner) if depth < MAX_DEPTH => flatten_into(flat, &name, inner, depth + 1),
            Value::Object(_) => {}
            Value::Array(values) => {
                flat.insert(name, values.clone());
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                flat.insert(name, vec![value.clone()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_objects_become_dotted_names_and_scalars_become_lists() {
        let claims =
            Claims::flatten(json!({"a": 1, "b": ["x"], "c": {"d": {"e": true}}, "n": null}).as_object().unwrap());
        assert_eq!(claims.find("a"), Some(&[json!(1)][..]));
        assert_eq!(claims.find("b"), Some(&[json!("x")][..]));
        assert_eq!(claims.find("c.d.e"), Some(&[json!(true)][..]));
        assert_eq!(claims.find("n"), None);
    }
}
