//! `report` on runs of the smoke profile: it stands alone, says what the tables say, and replaces nothing but a report. What a browser makes of
//! it, `just test-report` tells.

use crate::audit::whole;
use std::path::Path;
use std::process::{Command, Output};

fn report(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_report"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args(arguments)
        .output()
        .unwrap()
}

fn written(arguments: &[&Path]) -> String {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("report.html");
    let mut all = arguments.to_vec();
    all.extend([Path::new("--out"), &file]);
    let output = report(&all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_report_stands_alone_and_equal_runs_make_equal_files() {
    let run = whole(7, 2);
    let html = written(&[run]);
    for outside in ["<script", "src=", "@import", "url(", "<link", "http://", "https://"] {
        assert!(!html.contains(outside), "{outside} leads out of the report");
    }
    let ids: Vec<&str> = html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let mut different = ids.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(ids.len(), different.len(), "an id stands twice");
    for section in ["glance", "accuracy", "labels", "questions", "training", "drops", "costs", "learned", "settings", "origins"] {
        assert!(ids.contains(&section), "section {section} is missing");
        assert!(html.contains(&format!("href=\"#{section}\"")), "nothing leads to section {section}");
    }
    assert_eq!(html, written(&[run]));
}

#[test]
fn the_figures_are_those_of_the_summary() {
    let run = whole(7, 2);
    let html = written(&[run]);
    let summary = Command::new(env!("CARGO_BIN_EXE_summary")).arg(run).arg("--json").output().unwrap();
    let lines: Vec<serde_json::Value> =
        String::from_utf8(summary.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let figure = |of: &serde_json::Value, name: &str| {
        let at = |suffix: &str| of[format!("{name}{suffix}")].as_f64().unwrap();
        format!("{:.1} [{:.1}, {:.1}]", at(""), at("_low"), at("_high"))
    };
    let both = format!("<td>{} → {}</td>", figure(&lines[0], "greedy"), figure(&lines[1], "greedy"));
    assert!(html.contains(&both), "{both}");
    let kept = lines[1]["num_kept"].as_u64().unwrap();
    assert!(html.contains(&format!("<td>{kept}</td>")));
    let dropped: u64 = lines[1]["drops"].as_object().unwrap().values().map(|num| num.as_u64().unwrap()).sum();
    // A row of the chart's own figures: kept first, then each reason.
    let row = html.split("Candidates, kept and dropped by reason").last().unwrap().split("<tbody>").nth(1).unwrap();
    let row = row.split("</tr>").next().unwrap();
    let cells: Vec<u64> = row.split("<td>").skip(1).map(|cell| cell.split('<').next().unwrap().parse().unwrap()).collect();
    assert_eq!((cells[0], cells.iter().sum::<u64>()), (kept, kept + dropped), "{row}");
}

#[test]
fn runs_are_compared_and_settings_in_which_they_differ_are_marked() {
    let html = written(&[whole(7, 2), whole(8, 2)]);
    // Both lie in folders of one name, so more of their paths tells them apart.
    for run in [whole(7, 2), whole(8, 2)] {
        let name = format!("{}&#x2f;run", run.parent().unwrap().file_name().unwrap().to_str().unwrap());
        assert!(html.contains(&format!("<th scope=\"col\">{name}</th>")), "{name}");
    }
    assert!(html.contains("<th scope=\"row\">seed</th><td>1</td><td>7</td><td>8</td>"));
}

#[test]
fn hostile_names_are_text_and_a_run_that_goes_on_is_shown_as_far_as_it_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("\"<b onclick=x>&amp;'\u{202e}");
    assert!(Command::new("cp").arg("-r").args([whole(7, 2), &run]).status().unwrap().success());
    std::fs::remove_dir_all(run.join("iter-001/eval")).unwrap();
    std::fs::remove_dir_all(run.join("iter-001/solver/step-02")).unwrap();
    let html = written(&[&run]);
    assert!(!html.contains("<b ") && html.contains("&lt;b onclick=x&gt;&amp;amp;"));
    assert!(!html.contains('\u{202e}'), "a name turns the direction of reading");
    assert!(html.contains("Not finished yet: ") && html.contains("iteration 1: eval"), "nothing says what is missing");
}

#[test]
fn nothing_but_a_report_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thesis.html");
    std::fs::write(&file, "years of work").unwrap();
    let output = report(&[whole(7, 2), Path::new("--out"), &file]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("thesis.html") && text.contains("--out"), "{text}");
    assert_eq!(std::fs::read(&file).unwrap(), b"years of work");
    let output = report(&[folder.path(), Path::new("--out"), &folder.path().join("new.html")]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path().join("new.html").exists());
}
