//! Devices as they are described: on the command line, and in a file.

use std::path::Path;

use postern_policy::document::Node;
use postern_policy::{DeviceRecord, Enrolment};

use super::people::{File, Wrong, text, unknown};

/// The type that is meant where none is said.
const ANY: &str = "any";
/// How far a device got, in words.
pub(super) const STATES: [(&str, Enrolment); 3] =
    [("approved", Enrolment::Approved), ("unapproved", Enrolment::Unapproved), ("none", Enrolment::None)];
const KEYS: [&str; 3] = ["id", "type", "state"];
const EXAMPLE: &str = "write an id, or `id=laptop-1,type=any,state=approved`, or `@FILE`";

/// The devices that one `--device` describes: an id, which is of an approved device of the type `any`; `id=…,type=…,state=…`; or
/// `@FILE` with a list of them.
///
/// # Errors
/// What is wrong with it.
pub fn device(written: &str) -> Result<Vec<DeviceRecord>, String> {
    if let Some(file) = written.strip_prefix('@') {
        return File::read(Path::new(file))?.list(of);
    }
    let mut device = DeviceRecord { kind: ANY.to_owned(), id: String::new(), enrolment: Enrolment::Approved };
    if !written.contains('=') {
        written.clone_into(&mut device.id);
    }
    for part in written.split(',').filter(|_| written.contains('=')) {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}`: {EXAMPLE}"))?;
        set(&mut device, name.trim(), value.trim()).map_err(|why| format!("{why}; {EXAMPLE}"))?;
    }
    if device.id.is_empty() {
        return Err(format!("a device needs an id: {EXAMPLE}"));
    }
    Ok(vec![device])
}

/// One device of a file: an id alone, or a map.
pub(super) fn of(node: &Node, key: &str) -> Result<DeviceRecord, Wrong> {
    let mut device = DeviceRecord { kind: ANY.to_owned(), id: String::new(), enrolment: Enrolment::Approved };
    match node.as_map() {
        None => device.id = text(node, key)?,
        Some(entries) => {
            for entry in entries {
                let key = format!("{key}.{}", entry.key);
                let value = text(&entry.value, &key)?;
                if !KEYS.contains(&entry.key.as_str()) {
                    return Err(unknown(entry, &key, &KEYS));
                }
                set(&mut device, &entry.key, &value).map_err(|why| Wrong::at(entry.value.place, &key, why))?;
            }
        }
    }
    if device.id.is_empty() {
        return Err(Wrong::at(node.place, key, "a device needs an `id`; write `id: laptop-1`".to_owned()));
    }
    Ok(device)
}

fn set(device: &mut DeviceRecord, name: &str, value: &str) -> Result<(), String> {
    match name {
        "id" => value.clone_into(&mut device.id),
        "type" => value.clone_into(&mut device.kind),
        "state" => {
            let state = STATES.iter().find(|(word, _)| *word == value);
            let words = STATES.map(|(word, _)| format!("`{word}`")).join(", ");
            let wrong = || format!("`{value}` is no state of a device; write one of {words}");
            device.enrolment = state.ok_or_else(wrong)?.1;
        }
        _ => return Err(format!("a device has no `{name}`")),
    }
    Ok(())
}

/// A device in words.
pub(crate) fn words(device: &DeviceRecord) -> String {
    let state = match device.enrolment {
        Enrolment::Approved => "approved",
        Enrolment::Unapproved => "not approved",
        Enrolment::None => "not enrolled",
        Enrolment::NoCredential => "gone",
    };
    let kind = if device.kind == ANY { String::new() } else { format!(" of type {}", device.kind) };
    format!("device {}{kind}, {state}", device.id)
}

/// The same for programs, as a file has it.
pub(crate) fn to_json(device: &DeviceRecord) -> serde_json::Value {
    let state = STATES.iter().find(|(_, state)| *state == device.enrolment).map(|(word, _)| *word);
    serde_json::json!({ "id": device.id, "type": device.kind, "state": state })
}
