//! Lists of values that meet some list matchers or just miss them.

use serde_json::Value;

use super::{Sample, Samples};

/// Of so many values every choice is given; of more, each alone, all, and all but one.
const CHOICES: usize = 4;

/// Lists of these values, and of another that none of them is.
pub(super) fn of(values: &[Value]) -> Vec<Sample<Vec<Value>>> {
    let mut given: Vec<_> = values.iter().map(|value| Sample::named(vec![value.clone()])).collect();
    given.push(Sample::made_up(vec![Value::from(another(values))]));
    given.push(Sample::made_up(Vec::new()));
    if values.len() <= CHOICES {
        for choice in 1..1_usize << values.len() {
            let chosen = values.iter().enumerate().filter(|(at, _)| choice & (1 << at) != 0);
            given.push(Sample::made_up(chosen.map(|(_, value)| value.clone()).collect()));
        }
    } else {
        given.push(Sample::made_up(values.to_vec()));
        for (at, one) in values.iter().enumerate() {
            let others = values.iter().enumerate().filter(|(other, _)| *other != at);
            given.push(Sample::made_up(others.map(|(_, value)| value.clone()).collect()));
            let next = values.get(at + 1).or(values.first());
            given.push(Sample::made_up(std::iter::once(one).chain(next).cloned().collect()));
        }
    }
    // A list that has what is asked for need not have it alone.
    let more: Vec<_> = values.iter().map(|value| vec![value.clone(), Value::from(another(values))]).collect();
    given.extend(more.into_iter().map(Sample::made_up));
    // A text is no number.
    let misses = values.iter().map(|value| Sample::made_up(vec![Value::from(missed(value))]));
    given.extend(misses);
    given.truncate(Samples::MOST);
    given
}

fn another(values: &[Value]) -> String {
    let mut name = "another".to_owned();
    while values.iter().any(|value| value.as_str() == Some(&name)) {
        name.push('x');
    }
    name
}

fn missed(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("{text}x"))
}
