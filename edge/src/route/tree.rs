//! A radix tree over byte strings: one walk along a key passes everything that was stored under one of its prefixes.

use std::collections::BTreeMap;
use std::ops::Range;

/// The order of a route in the file, or [`NEVER`].
pub(super) type Order = u32;

/// After every route.
pub(super) const NEVER: Order = Order::MAX;

/// Values by key. Each has an order, and walks leave out what comes too late.
#[derive(Debug)]
pub(super) struct Tree<V> {
    /// The root first; the children of a node stand side by side, sorted by their first byte.
    nodes: Vec<Node<V>>,
    /// For each node, the byte that leads to it.
    bytes: Vec<u8>,
    /// The labels of all nodes.
    text: Vec<u8>,
}

#[derive(Debug)]
struct Node<V> {
    /// In `text`: what follows the byte that leads here.
    label: Range<usize>,
    /// In `nodes`.
    children: Range<usize>,
    /// The lowest order here and below.
    least: Order,
    value: Option<V>,
}

impl<V> Tree<V> {
    /// The tree of `entries`; `order` tells the order of each.
    pub(super) fn new(entries: BTreeMap<Vec<u8>, V>, order: impl Fn(&V) -> Order) -> Self {
        let (keys, mut values): (Vec<_>, Vec<_>) = entries.into_iter().map(|(key, value)| (key, Some(value))).unzip();
        let mut tree = Self { nodes: Vec::new(), bytes: vec![0], text: Vec::new() };
        // Breadth first, so that children end up side by side: which keys a node holds, and how much of them is behind it.
        let mut holds = vec![(0..keys.len(), 0)];
        while let Some((range, depth)) = holds.get(tree.nodes.len()).cloned() {
            let held = keys.get(range.clone()).unwrap_or_default();
            let (first, last) = (rest(held.first(), depth), rest(held.last(), depth));
            // They are sorted: what the first and the last share, all share.
            let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            let label = tree.text.len()..tree.text.len() + shared;
            tree.text.extend(first.iter().take(shared));
            let depth = depth + shared;
            let ends_here = held.first().is_some_and(|key| key.len() == depth);
            let value = if ends_here { values.get_mut(range.start).and_then(Option::take) } else { None };
            let mut start = range.start + usize::from(ends_here);
            let children_from = holds.len();
            while let Some(byte) = keys.get(start..range.end).and_then(|left| left.first()?.get(depth)) {
                let left = keys.get(start..range.end).unwrap_or_default();
                let end = start + left.partition_point(|key| key.get(depth) <= Some(byte));
                tree.bytes.push(*byte);
                holds.push((start..end, depth + 1));
                start = end;
            }
            let least = value.as_ref().map_or(NEVER, &order);
            tree.nodes.push(Node { label, children: children_from..holds.len(), least, value });
        }
        tree.sum_up();
        tree
    }

    /// Every value, in no order that matters.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.nodes.iter().filter_map(|node| node.value.as_ref())
    }

    /// Lets each node know the lowest order below it. Children stand behind their parents.
    fn sum_up(&mut self) {
        for index in (0..self.nodes.len()).rev() {
            let below = |node: &Node<V>| self.nodes.get(node.children.clone())?.iter().map(|child| child.least).min();
            let least = self.nodes.get(index).and_then(below).unwrap_or(NEVER);
            if let Some(node) = self.nodes.get_mut(index) {
                node.least = node.least.min(least);
            }
        }
    }

    /// Shows `visit` each value whose key is a prefix of `key`, the shortest first, with the length of that prefix. What it
    /// gives back is the bound from then on: whatever has this order or a later one is left out.
    #[inline]
    pub(super) fn walk(
        &self,
        mut key: impl Iterator<Item = u8>,
        mut bound: Order,
        mut visit: impl FnMut(&V, usize) -> Order,
    ) {
        let (mut at, mut depth) = (0, 0);
        while let Some(node) = self.nodes.get(at) {
            let label = self.text.get(node.label.clone()).unwrap_or_default();
            if node.least >= bound || !label.iter().all(|byte| key.next() == Some(*byte)) {
                return;
            }
            depth += label.len();
            if let Some(value) = &node.value {
                bound = visit(value, depth);
            }
            let Some(byte) = key.next() else { return };
            let bytes = self.bytes.get(node.children.clone()).unwrap_or_default();
            let Ok(child) = bytes.binary_search(&byte) else { return };
            at = node.children.start + child;
            depth += 1;
        }
    }
}

/// What of a key is behind `depth`.
fn rest(key: Option<&Vec<u8>>, depth: usize) -> &[u8] {
    key.and_then(|key| key.get(depth..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The orders of the values that a walk passes.
    fn passed(tree: &Tree<Order>, key: &[u8]) -> Vec<(Order, usize)> {
        let mut seen = Vec::new();
        tree.walk(key.iter().copied(), NEVER, |order, depth| {
            seen.push((*order, depth));
            NEVER
        });
        seen
    }

    proptest! {
        #[test]
        fn a_walk_passes_every_prefix_of_its_key(
            keys in prop::collection::btree_set("[ab/]{0,6}", 0..12),
            key in "[ab/]{0,8}",
        ) {
            let entries: BTreeMap<_, _> = keys.iter().map(|key| key.clone().into_bytes()).zip(0..).collect();
            let prefixes = keys.iter().zip(0..).filter(|(own, _)| key.starts_with(own.as_str()));
            let wanted: Vec<(Order, usize)> = prefixes.map(|(own, order)| (order, own.len())).collect();
            prop_assert_eq!(passed(&Tree::new(entries, |order| *order), key.as_bytes()), wanted);
        }
    }

    #[test]
    fn what_comes_too_late_is_not_shown() {
        let entries =
            [("/", 3), ("/a", 1), ("/a/b", 0), ("/a/c", 4)].map(|(key, order)| (key.as_bytes().to_vec(), order));
        let tree = Tree::new(entries.into_iter().collect(), |order| *order);
        let mut seen = Vec::new();
        tree.walk(b"/a/c".iter().copied(), NEVER, |order, _| {
            seen.push(*order);
            *order
        });
        assert_eq!(seen, [3, 1], "`/a/c` comes after what was found");
    }

    #[test]
    fn many_nested_keys_are_no_deeper_for_it() {
        let entries = (0..10_000).map(|length| (vec![b'a'; length as usize], length)).collect();
        let tree = Tree::new(entries, |order| *order);
        assert_eq!(passed(&tree, &[b'a'; 9_999]).len(), 10_000);
    }
}
