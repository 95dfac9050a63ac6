//! Types that are meant by their tier.

use tidemill_core::Tier;

use super::cx::{Cx, Problem, Span};
use super::nodes::Draft;
use super::types::Types;
use crate::{codes, suggest};

/// What stands before the name of a tier in `types`.
const PREFIX: &str = "tier:";

/// How long after its end and the allowed lateness an hour of a type is to be sealed when nothing is said, in milliseconds.
pub(super) fn seal_within_ms(tier: Tier) -> i64 {
    match tier {
        Tier::High => 60_000,
        Tier::Normal => 300_000,
        Tier::Low => 1_800_000,
    }
}

/// Puts the types of a tier in the place of `tier:NAME`.
pub(super) fn expand(cx: &Cx<'_>, types: &Types, drafts: &mut [Draft<'_, '_>]) {
    for draft in drafts {
        let Some(names) = draft.types.take() else { continue };
        let mut expanded: Vec<(String, Span)> = Vec::with_capacity(names.len());
        for (name, span) in names {
            match name.strip_prefix(PREFIX) {
                None => expanded.push((name, span)),
                Some(tier) => {
                    let of_tier = of_tier(cx, types, tier, &span);
                    draft.by_tier.extend(of_tier.iter().cloned());
                    let is_new = |name: &String| !expanded.iter().any(|(known, _)| known == name);
                    let new: Vec<String> = of_tier.into_iter().filter(is_new).collect();
                    expanded.extend(new.into_iter().map(|name| (name, span.clone())));
                }
            }
        }
        draft.types = Some(expanded);
    }
}

fn of_tier(cx: &Cx<'_>, types: &Types, tier: &str, span: &Span) -> Vec<String> {
    let Some(tier) = Tier::named(tier) else {
        let help = suggest::help(tier, &Tier::ALL.map(Tier::as_str), "tiers");
        cx.push(Problem::error(codes::UNKNOWN_CHOICE, span.clone(), format!("there is no tier `{tier}`")).help(help));
        return Vec::new();
    };
    let of_tier = types.iter().filter(|(_, declared)| declared.tier == tier);
    let names: Vec<String> = of_tier.map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        let message = format!("no type is of the tier `{}`", tier.as_str());
        let help = format!("write `tier = \"{}\"` in the tables of types", tier.as_str());
        cx.push(Problem::error(codes::TYPE_NEVER_ARRIVES, span.clone(), message).help(help));
    }
    names
}
