//! Pictures of a plan.

use std::fmt::Write;

use tidemill_core::Role;

use crate::plan::{Edge, Node, Plan, Port};

/// A language for pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphFormat {
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz DOT.
    Dot,
}

/// The plan as a picture: nodes with kind and workers, edges with the types they are narrowed to, dead letters dashed.
#[must_use]
pub fn graph(plan: &Plan, format: GraphFormat) -> String {
    match format {
        GraphFormat::Mermaid => mermaid(plan),
        GraphFormat::Dot => dot(plan),
    }
}

fn below(node: &Node) -> String {
    match node.workers {
        0 | 1 => node.kind.name.to_owned(),
        workers => format!("{} x {workers}", node.kind.name),
    }
}

/// What stands on an edge: narrowed types; on dashed ones without, what they are.
fn label(edge: &Edge) -> String {
    match (&edge.types, edge.port) {
        (Some(types), Port::Data) => types.join(", "),
        (None, Port::Data) => String::new(),
        (_, Port::DeadLetters) => "dead letters".to_owned(),
    }
}

fn mermaid(plan: &Plan) -> String {
    let escape = |text: &str| {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '"' | '#' | '&' | '<' | '>' | ';' | '`' | '|' | '[' | ']' | '{' | '}' | '\\' => {
                    let _ = write!(out, "#{};", u32::from(c));
                }
                c if c.is_control() => out.push(' '),
                c => out.push(c),
            }
        }
        out
    };
    let mut out = format!("---\ntitle: {}\n---\nflowchart LR\n", plan.name);
    for (at, node) in plan.nodes.iter().enumerate() {
        let (open, close) = match node.role {
            Role::Source => ("([", "])"),
            Role::Stage => ("[", "]"),
            Role::Sink => ("[(", ")]"),
        };
        let (name, below) = (escape(&node.name), escape(&below(node)));
        let _ = writeln!(out, "    n{at}{open}\"{name}<br/><small>{below}</small>\"{close}");
    }
    for (at, node) in plan.nodes.iter().enumerate() {
        for edge in &node.inputs {
            let label = escape(&label(edge));
            let _ = match edge.port {
                Port::Data if label.is_empty() => writeln!(out, "    n{} --> n{at}", edge.from),
                Port::Data => writeln!(out, "    n{} -->|\"{label}\"| n{at}", edge.from),
                Port::DeadLetters => writeln!(out, "    n{} -.->|\"{label}\"| n{at}", edge.from),
            };
        }
    }
    out
}

fn dot(plan: &Plan) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
    let mut out =
        format!("digraph \"{}\" {{\n    rankdir=LR;\n    node [fontname=\"sans-serif\"];\n", escape(&plan.name));
    for (at, node) in plan.nodes.iter().enumerate() {
        let shape = match node.role {
            Role::Source => "ellipse",
            Role::Stage => "box",
            Role::Sink => "cylinder",
        };
        let (name, below) = (escape(&node.name), escape(&below(node)));
        let _ = writeln!(out, "    n{at} [label=\"{name}\\n{below}\", shape={shape}];");
    }
    for (at, node) in plan.nodes.iter().enumerate() {
        for edge in &node.inputs {
            let label = match label(edge) {
                text if text.is_empty() => String::new(),
                text => format!("label=\"{}\"", escape(&text)),
            };
            let style = if edge.port == Port::DeadLetters { ", style=dashed" } else { "" };
            let _ = match label.is_empty() {
                true => writeln!(out, "    n{} -> n{at};", edge.from),
                false => writeln!(out, "    n{} -> n{at} [{label}{style}];", edge.from),
            };
        }
    }
    out.push_str("}\n");
    out
}
