//! What each site costs: judged by ONNX Runtime on models with that site alone quantised, and held against itself.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, PREPROCESSING, Run, digits, python, quantize, text, vitq};

/// Measures the fixture.
fn sensitivity(more: &[&str]) -> Run {
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let mut args = vec!["sensitivity", &model, "--calib", &calib];
    args.extend(PREPROCESSING);
    args.extend(more);
    vitq(&args)
}

fn read(folder: &Folder, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.path(name)).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key} in {value}"))
}

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("no number {key} in {value}"))
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// Paths of the sites that `inspect` shows, sorted.
fn inspected() -> Vec<String> {
    let run = vitq(&["inspect", &text(&digits("model.onnx")), "--json"]).succeeds();
    let inspection: Value = serde_json::from_str(&run.stdout).unwrap();
    let structure = &inspection["structure"];
    let parts = list(structure, "blocks").iter().chain([structure]);
    let mut paths: Vec<String> = parts
        .flat_map(|part| list(part, "sites"))
        .map(|site| word(site, "path").to_owned())
        .collect();
    paths.sort();
    paths
}

/// Energy of an error, relative to its signal.
fn energy(db: f64) -> f64 {
    10f64.powf(-db / 10.0)
}

/// Fails unless nine of ten hold.
#[track_caller]
fn mostly(held: &[bool]) {
    let count = held.iter().filter(|it| **it).count();
    assert!(
        10 * count >= 9 * held.len() && !held.is_empty(),
        "{count} of {}",
        held.len()
    );
}

#[test]
fn every_site_has_its_row_and_narrower_costs_more() {
    let folder = Folder::new();
    let (json, plot) = (folder.arg("cost.json"), folder.arg("cost.svg"));
    let run = sensitivity(&[
        "--scope", "all", "--widths", "4,8,6", "--json", &json, "--plot", &plot,
    ])
    .succeeds();
    println!("{}", run.stdout);
    let report = read(&folder, "cost.json");
    assert_eq!(report["version"], 1);
    assert_eq!(report["widths"], serde_json::json!([8, 6, 4]));
    let sites = list(&report, "sites");
    let paths: Vec<&str> = sites.iter().map(|site| word(site, "path")).collect();
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, inspected());
    assert_eq!(
        [paths[0], paths[4], paths[31]],
        ["patch_embed.proj", "blocks.0.attn.proj", "head"],
        "not in the graph's order"
    );

    falls(&report, sites);
    parts_add_up(sites);
    groups_add_up(&report, sites);
    the_table_says_the_same(&run.stdout, sites);

    let picture = python("svg.py", &[&folder.path("cost.svg")]);
    assert_eq!(picture["root"], "svg");
    let texts = list(&picture, "texts");
    for expected in paths.iter().chain(&["w8a8", "w6a6", "w4a4"]) {
        assert!(
            texts.iter().any(|it| it == expected),
            "{expected}: {texts:?}"
        );
    }
    // A dot a site, and one in the legend.
    assert_eq!(
        picture["circles"],
        serde_json::json!(vec![sites.len() + 1; 3])
    );
    assert_eq!(folder.names(), ["cost.json", "cost.svg"]);
}

fn falls(report: &Value, sites: &[Value]) {
    let figures = |site: &Value| -> Vec<f64> {
        list(site, "costs")
            .iter()
            .map(|cost| number(cost, "both_db"))
            .collect()
    };
    let falling: Vec<bool> = sites
        .iter()
        .map(|site| figures(site).is_sorted_by(|wider, narrower| wider > narrower))
        .collect();
    mostly(&falling);
    let total: Vec<f64> = list(&report["total"], "both_db")
        .iter()
        .map(|db| db.as_f64().unwrap())
        .collect();
    assert!(total.windows(2).all(|it| it[0] > it[1] + 3.0), "{total:?}");
}

/// The errors of weights and activation are nearly independent.
fn parts_add_up(sites: &[Value]) {
    let costs = || sites.iter().flat_map(|site| list(site, "costs"));
    let (linears, products): (Vec<&Value>, Vec<&Value>) =
        costs().partition(|cost| !cost["weight_db"].is_null());
    let near: Vec<bool> = linears
        .iter()
        .map(|cost| {
            let sum = energy(number(cost, "weight_db")) + energy(number(cost, "activation_db"));
            (-10.0 * sum.log10() - number(cost, "both_db")).abs() < 3.0
        })
        .collect();
    mostly(&near);
    assert_eq!(products.len(), 3 * 10);
    for cost in products {
        assert_eq!(cost["activation_db"], cost["both_db"]);
    }
}

fn groups_add_up(report: &Value, sites: &[Value]) {
    for (groups, key) in [("roles", "role"), ("blocks", "block")] {
        for group in list(report, groups) {
            let name = word(group, "name");
            let members: Vec<&Value> = sites
                .iter()
                .filter(|site| site[key].as_str().unwrap_or(word(site, "role")) == name)
                .collect();
            assert_eq!(number(group, "sites"), members.len() as f64, "{group}");
            let sum: f64 = members
                .iter()
                .map(|site| energy(number(&site["costs"][0], "both_db")))
                .sum();
            let db = group["both_db"][0].as_f64().unwrap();
            assert!((db + 10.0 * sum.log10()).abs() < 1e-6, "{group}");
        }
    }
    assert_eq!(number(&report["total"], "sites"), sites.len() as f64);
}

fn the_table_says_the_same(table: &str, sites: &[Value]) {
    let figure = |db: &Value| {
        db.as_f64()
            .map_or_else(|| "-".to_owned(), |db| format!("{db:.1}"))
    };
    let mut marks = 0;
    for site in sites {
        let row: Vec<&str> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|row| row.first() == Some(&word(site, "path")))
            .unwrap_or_else(|| panic!("no row of {site}"));
        marks += row.iter().filter(|it| it.ends_with('*')).count();
        let mut expected = vec![
            word(site, "path").to_owned(),
            word(site, "role").to_owned(),
            site["parameters"].to_string(),
        ];
        for cost in list(site, "costs") {
            expected.extend(["weight_db", "activation_db", "both_db"].map(|it| figure(&cost[it])));
        }
        let row: Vec<&str> = row.iter().map(|it| it.trim_end_matches('*')).collect();
        assert_eq!(row, expected);
    }
    assert_eq!(marks, 3 * 10, "{table}");
}

#[test]
fn onnx_runtime_sees_the_same_cost_of_a_site() {
    let folder = Folder::new();
    let json = folder.arg("cost.json");
    let run = sensitivity(&["--widths", "8", "--quiet", "--json", &json]).succeeds();
    assert_eq!(run.stdout, "");
    let report = read(&folder, "cost.json");
    let inputs = number(&report, "inputs") as usize;
    assert_eq!(inputs, 2);
    fs::create_dir_all(folder.path("images/0")).unwrap();
    for i in 0..inputs {
        let name = format!("{i:03}.png");
        let image = digits("images/calib").join(&name);
        fs::copy(image, folder.path("images/0").join(&name)).unwrap();
    }
    let sites = list(&report, "sites");
    assert_eq!(sites.len(), 21);
    // Behind a folded LayerNormalization, behind a GELU, behind attention, and the last one.
    for path in [
        "blocks.0.mlp.fc1",
        "blocks.1.mlp.fc2",
        "blocks.0.attn.proj",
        "head",
    ] {
        let mut more = vec!["--no-guard", "--quiet"];
        let others = sites.iter().map(|site| word(site, "path"));
        for other in others.filter(|other| *other != path) {
            more.extend(["--keep-float", other]);
        }
        let out = folder.path("alone.onnx");
        quantize(&digits("model.onnx"), &digits("images/calib"), &out, &more).succeeds();
        let judged = python(
            "judge.py",
            &[&digits("model.onnx"), &out, &folder.path("images")],
        );
        assert_eq!(number(&judged, "samples"), 2.0);
        assert_eq!(number(&judged, "int8_weights"), 1.0, "{path}");
        let site = sites.iter().find(|site| word(site, "path") == path);
        let reported = number(&site.unwrap()["costs"][0], "both_db");
        println!("{path}: {reported} dB, in ONNX Runtime {judged}");
        assert!(
            (reported - number(&judged, "sqnr_db")).abs() < 0.5,
            "{path}: {reported} dB, in ONNX Runtime {judged}"
        );
    }
}

#[test]
fn the_figures_do_not_depend_on_the_number_of_threads() {
    let folder = Folder::new();
    let bytes = |threads: &str| {
        let json = folder.arg("cost.json");
        sensitivity(&[
            "--scope",
            "all",
            "--widths",
            "8,4",
            "--samples",
            "5",
            "--threads",
            threads,
            "--json",
            &json,
        ])
        .succeeds();
        fs::read(folder.path("cost.json")).unwrap()
    };
    assert!(bytes("1") == bytes("2"));
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = Folder::new();
    for widths in ["8,9", "1", "8,six", "", "-4"] {
        sensitivity(&[&format!("--widths={widths}")]).refuses(&["--widths"]);
    }
    sensitivity(&["--widths", "8,9"]).refuses(&["2..=8"]);
    let json = folder.arg("nowhere/cost.json");
    sensitivity(&["--json", &json]).refuses(&["nowhere/cost.json", "there is no folder"]);
    let same = folder.arg("cost");
    sensitivity(&["--json", &same, "--plot", &same]).refuses(&[&same, "overwritten"]);
    let model = text(&digits("model.onnx"));
    sensitivity(&["--plot", &model]).refuses(&["model.onnx", "overwritten"]);
    vitq(&["sensitivity", &model, "--calib", "nowhere/images"]).refuses(&["nowhere/images"]);
    assert_eq!(folder.names(), [""; 0], "something was left behind");
}
