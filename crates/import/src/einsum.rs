//! Einstein sums as sums, moves of axes and products of matrices.

use crate::Problem;
use crate::operators::Context;
use rockshard_graph::{Binary, Op, Reduce, ValueId};
use std::collections::BTreeMap;

/// An axis: a letter, or one of those that an ellipsis stands for, counted from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Dots(usize),
    Letter(char),
}

/// A value with what its axes are.
#[derive(Clone)]
struct Term {
    value: ValueId,
    labels: Vec<Label>,
}

pub(crate) fn import(c: &mut Context<'_, '_>) -> Result<(), Problem> {
    let equation: String =
        c.attributes.text("equation", "").chars().filter(|ch| !ch.is_whitespace()).collect();
    let bad = || Problem::Form(format!("equation {equation:?} does not fit the inputs"));
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let inputs: Vec<ValueId> = c.inputs.iter().flatten().copied().collect();
    let mut terms = Vec::new();
    for (text, &value) in left.split(',').zip(&inputs) {
        let labels = labels(text, Some(c.rank(value))).ok_or_else(bad)?;
        terms.push(Term { value, labels });
    }
    if terms.len() != inputs.len() || left.split(',').count() != inputs.len() {
        return Err(bad());
    }
    let extents = extents(c, &terms).ok_or_else(bad)?;
    let dots = extents.keys().filter(|l| matches!(l, Label::Dots(_))).count();
    let wanted = match right {
        Some(text) => {
            let letters = text.replace("...", "").chars().count();
            let dots = if text.contains("...") { dots } else { 0 };
            labels(text, Some(letters + dots)).ok_or_else(bad)?
        }
        None => implied(&terms, dots),
    };
    if wanted.iter().any(|l| !extents.contains_key(l)) {
        return Err(bad());
    }
    for term in &mut terms {
        spread(c, term, &extents)?;
    }
    let mut all = terms.into_iter();
    let mut sum = all.next().ok_or_else(bad)?;
    let rest: Vec<Term> = all.collect();
    for (i, next) in rest.iter().enumerate() {
        let later =
            |l: &Label| wanted.contains(l) || rest[i + 1..].iter().any(|t| t.labels.contains(l));
        sum = product(c, sum, next.clone(), &later)?;
    }
    sum = reduced(c, sum, &|l| wanted.contains(l))?;
    let perm =
        wanted.iter().map(|l| sum.labels.iter().position(|m| m == l)).collect::<Option<Vec<_>>>();
    let result = c.transposed(sum.value, perm.ok_or_else(bad)?)?;
    c.alias(result)
}

/// The axes that a text names, for a value of so many axes.
fn labels(text: &str, rank: Option<usize>) -> Option<Vec<Label>> {
    let (front, back) = match text.split_once("...") {
        Some((front, back)) => (front, Some(back)),
        None => (text, None),
    };
    let mut labels = Vec::new();
    let letters = |labels: &mut Vec<Label>, text: &str| {
        text.chars().all(|ch| {
            labels.push(Label::Letter(ch));
            ch.is_ascii_alphabetic()
        })
    };
    let mut good = letters(&mut labels, front);
    if let Some(back) = back {
        let count = rank?.checked_sub(front.chars().count() + back.chars().count())?;
        labels.extend((0..count).rev().map(Label::Dots));
        good &= letters(&mut labels, back);
    }
    let unique = labels.iter().enumerate().all(|(i, l)| !labels[..i].contains(l));
    (good && unique && rank.is_none_or(|r| r == labels.len())).then_some(labels)
}

/// Without an arrow: the ellipsis, then the letters that occur once, in their order.
fn implied(terms: &[Term], dots: usize) -> Vec<Label> {
    let mut count: BTreeMap<Label, usize> = BTreeMap::new();
    for label in terms.iter().flat_map(|t| &t.labels) {
        *count.entry(*label).or_default() += 1;
    }
    let once = count.into_iter().filter(|(l, n)| matches!(l, Label::Letter(_)) && *n == 1);
    (0..dots).rev().map(Label::Dots).chain(once.map(|(l, _)| l)).collect()
}

fn extents(c: &Context<'_, '_>, terms: &[Term]) -> Option<BTreeMap<Label, usize>> {
    let mut extents: BTreeMap<Label, usize> = BTreeMap::new();
    for term in terms {
        for (&label, &extent) in term.labels.iter().zip(c.walk.shape(term.value)) {
            let known = extents.entry(label).or_insert(extent);
            match (*known, extent) {
                (a, b) if a == b => {}
                (1, b) => *known = b,
                (_, 1) => {}
                _ => return None,
            }
        }
    }
    Some(extents)
}

/// A value whose axes all have their whole extent.
fn spread(
    c: &mut Context<'_, '_>,
    term: &mut Term,
    extents: &BTreeMap<Label, usize>,
) -> Result<(), Problem> {
    let shape: Vec<usize> = term.labels.iter().map(|l| extents[l]).collect();
    if c.walk.shape(term.value) != shape {
        term.value = c.step("spread", Op::Expand { shape }, &[term.value])?;
    }
    Ok(())
}

/// Sum over the axes that nothing needs.
fn reduced(
    c: &mut Context<'_, '_>,
    term: Term,
    needed: &dyn Fn(&Label) -> bool,
) -> Result<Term, Problem> {
    let axes: Vec<usize> = (0..term.labels.len()).filter(|&i| !needed(&term.labels[i])).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let op = Op::Reduce { kind: Reduce::Sum, axes, keep: false };
    let value = c.step("sum", op, &[term.value])?;
    let labels = term.labels.into_iter().filter(|l| needed(l)).collect();
    Ok(Term { value, labels })
}

/// Two values, multiplied and summed over the axes that both have and nothing needs later.
fn product(
    c: &mut Context<'_, '_>,
    a: Term,
    b: Term,
    later: &dyn Fn(&Label) -> bool,
) -> Result<Term, Problem> {
    let a = reduced(c, a.clone(), &|l| later(l) || b.labels.contains(l))?;
    let b = reduced(c, b, &|l| later(l) || a.labels.contains(l))?;
    let both = |l: &&Label| a.labels.contains(l) && b.labels.contains(l);
    let batch: Vec<Label> = a.labels.iter().filter(both).filter(|l| later(l)).copied().collect();
    let summed: Vec<Label> = a.labels.iter().filter(both).filter(|l| !later(l)).copied().collect();
    let rows: Vec<Label> = a.labels.iter().filter(|l| !b.labels.contains(l)).copied().collect();
    let columns: Vec<Label> = b.labels.iter().filter(|l| !a.labels.contains(l)).copied().collect();
    let left = arranged(c, &a, [&batch, &rows, &summed])?;
    let right = arranged(c, &b, [&batch, &summed, &columns])?;
    let extent = |c: &Context<'_, '_>, term: &Term, list: &[Label]| -> Vec<usize> {
        let of = |l: &Label| {
            let at = term.labels.iter().position(|m| m == l).unwrap_or(0);
            c.walk.shape(term.value)[at]
        };
        list.iter().map(of).collect()
    };
    let shape = [extent(c, &a, &batch), extent(c, &a, &rows), extent(c, &b, &columns)].concat();
    let value = if summed.is_empty() {
        // Nothing to sum: a product by element, a row by a column.
        c.binary("product", Binary::Mul, left, right)?
    } else {
        c.step("product", Op::MatMul, &[left, right])?
    };
    let value = c.reshaped(value, shape)?;
    Ok(Term { value, labels: [batch, rows, columns].concat() })
}

/// A value with its axes in three groups: the first as they are, the others one axis each.
fn arranged(
    c: &mut Context<'_, '_>,
    term: &Term,
    groups: [&Vec<Label>; 3],
) -> Result<ValueId, Problem> {
    let place = |l: &Label| term.labels.iter().position(|m| m == l).unwrap_or(0);
    let perm: Vec<usize> = groups.iter().flat_map(|g| g.iter().map(place)).collect();
    let moved = c.transposed(term.value, perm)?;
    let dims = c.walk.shape(moved).to_vec();
    let (first, second) = (groups[0].len(), groups[0].len() + groups[1].len());
    let shape = [
        dims[..first].to_vec(),
        vec![dims[first..second].iter().product(), dims[second..].iter().product()],
    ];
    c.reshaped(moved, shape.concat())
}
