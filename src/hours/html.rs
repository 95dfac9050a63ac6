//! Hours as one HTML page that needs nothing else.

use std::fmt::Write as _;

use super::{Hour, Report, State};
use crate::display::count;

const STYLE: &str = "
:root{color-scheme:light dark;--sealed:#a5d6a7;--revised:#64b5f6;--empty:#e8f5e9;--open:#fff59d;--partial:#ffcc80;--overdue:#ef6c00;--missing:#c62828;--line:#8884}
@media(prefers-color-scheme:dark){:root{--sealed:#2e5d32;--revised:#1f5f9e;--empty:#16281a;--open:#827717;--partial:#8d5a14;--overdue:#ffa726;--missing:#ef5350}}
body{font:14px/1.4 system-ui,sans-serif;margin:1rem}
h1{font-size:1.2rem;margin:0 0 .3rem}
p{margin:.3rem 0}
.wrap{overflow:auto;max-height:80vh;border:1px solid var(--line);margin-top:.6rem}
table{border-collapse:separate;border-spacing:0}
th,td{border-right:1px solid var(--line);border-bottom:1px solid var(--line);padding:0}
th{position:sticky;background:Canvas;font-weight:400;font-variant-numeric:tabular-nums}
thead th{top:0;z-index:1;height:1.2rem;font-size:.75rem;text-align:left;padding-left:.2rem;white-space:nowrap;overflow:hidden}
thead tr+tr th{top:1.2rem;text-align:center;padding:0}
tbody th{left:0;text-align:left;padding:0 .5rem;white-space:nowrap;max-width:22rem;overflow:hidden;text-overflow:ellipsis}
thead th.type{left:0;z-index:2;text-align:left;padding-left:.5rem}
td{width:1.35rem;height:1.35rem;text-align:center;font:600 .8rem/1 monospace}
.sealed{background:var(--sealed)}.revised{background:var(--revised)}.empty{background:var(--empty)}.partial{background:var(--partial)}
.open,.unpublished{background:var(--open)}.overdue{background:var(--overdue);color:Canvas}.missing{background:var(--missing);color:Canvas}
.key span{display:inline-block;width:1.35rem;text-align:center;font:600 .8rem/1.35rem monospace;margin:0 .3rem 0 .8rem}
";

/// Shows the rows whose label holds what is typed, and, if asked for, only those with something to look at.
const SCRIPT: &str = "
const rows=[...document.querySelectorAll('tbody tr')],q=document.getElementById('q'),bad=document.getElementById('bad'),n=document.getElementById('n');
function show(){const t=q.value.toLowerCase();let c=0;for(const r of rows){const y=r.firstChild.textContent.toLowerCase().includes(t)&&(!bad.checked||r.dataset.bad);
r.hidden=!y;c+=y}n.textContent=c+' of '+rows.length}
q.addEventListener('input',show);bad.addEventListener('change',show);show();
";

fn class(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Overdue => "overdue",
        State::Sealed => "sealed",
        State::Empty => "empty",
        State::Partial => "partial",
        State::Revised => "revised",
        State::Unpublished => "unpublished",
        State::Missing => "missing",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What is shown when one points at an hour.
fn title(label: &str, hour: &Hour) -> String {
    let mut text = format!("{label} {}: {}", hour.start, hour.state.name());
    if !hour.revisions.is_empty() {
        let _ = write!(text, ", {} events", count(hour.events));
    }
    if hour.late > 0 {
        let _ = write!(text, ", {} late", count(hour.late));
    }
    if let Some(last) = hour.revisions.last() {
        let _ = write!(text, ", revision {} at {}", last.revision, last.sealed_at);
    }
    if let Some(overdue_ms) = hour.overdue_ms {
        let _ = write!(text, ", by {} min", overdue_ms / 60_000);
    }
    text
}

/// The days, and below them the hours.
fn head(report: &Report, page: &mut String) {
    let times: Vec<String> = report.starts_ms.iter().map(|start| tidemill_core::format_time_ms(*start)).collect();
    let day = |time: &String| time.get(..10).unwrap_or_default().to_owned();
    for of_day in times.chunk_by(|a, b| day(a) == day(b)) {
        let _ = write!(page, "<th colspan=\"{}\">{}</th>", of_day.len(), day(&of_day[0]));
    }
    page.push_str("</tr><tr><th class=\"type\">type</th>");
    let digits = if report.hour_ms < 3_600_000 { 11..16 } else { 11..13 };
    for time in &times {
        let _ = write!(page, "<th title=\"{time}\">{}</th>", time.get(digits.clone()).unwrap_or_default());
    }
}

/// The page. About 100 bytes for each hour that anything is known of.
pub(crate) fn html(report: &Report) -> String {
    let topology = escaped(report.topology.as_deref().unwrap_or("hours"));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{topology}: hours</title><style>{STYLE}</style></head><body>\n<h1>{topology}: hours by type</h1>\n"
    );
    let _ = writeln!(
        page,
        "<p>{} to {} (UTC), as of {}{}. {}</p>",
        report.since,
        report.until,
        report.at,
        if report.is_running { "" } else { "; no process runs it" },
        if report.is_partial { "Not all of what was published was looked at." } else { "" }
    );
    page.push_str("<p class=\"key\">");
    for state in State::ALL {
        let _ = write!(page, "<span class=\"{}\">{}</span>{}", class(state), state.symbol(), state.name());
    }
    page.push_str(
        "</p>\n<p><label>Type <input id=\"q\" type=\"search\"></label> <label><input id=\"bad\" type=\"checkbox\"> overdue, missing or partial only</label> \
         <span id=\"n\"></span></p>\n<div class=\"wrap\"><table><thead><tr><th class=\"type\"></th>",
    );
    head(report, &mut page);
    page.push_str("</tr></thead><tbody>\n");
    for row in &report.types {
        let label = escaped(&row.label(&report.types));
        let is_bad =
            row.hours.iter().any(|hour| matches!(hour.state, State::Overdue | State::Missing | State::Partial));
        let waits = row.held_by.as_ref().map_or_else(String::new, |held| format!("; waits for {}", escaped(held)));
        let owner = row.owner.as_ref().map_or_else(String::new, |owner| format!(", {}", escaped(owner)));
        let bad = if is_bad { " data-bad=\"1\"" } else { "" };
        let _ = write!(page, "<tr{bad}><th title=\"{label}{owner}{waits}\">{label}</th>");
        let mut hours = row.hours.iter().peekable();
        for start in &report.starts_ms {
            match hours.next_if(|hour| hour.start_ms == *start) {
                Some(hour) => {
                    let (class, symbol) = (class(hour.state), hour.state.symbol());
                    let _ = write!(page, "<td class=\"{class}\" title=\"{}\">{symbol}</td>", title(&label, hour));
                }
                None => page.push_str("<td></td>"),
            }
        }
        page.push_str("</tr>\n");
    }
    let _ = write!(page, "</tbody></table></div>\n<script>{SCRIPT}</script>\n</body></html>\n");
    page
}
