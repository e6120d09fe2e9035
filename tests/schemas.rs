//! The shipped JSON Schemas say what the files are read as: `trefoil schema` prints them, every example
//! is valid by them, and they name the same keys as the loader.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn schema(kind: &str) -> Value {
    let text = std::fs::read_to_string(root().join(format!("schemas/{kind}.schema.json"))).expect("a schema");
    serde_json::from_str(&text).expect("JSON")
}

fn document(text: &str) -> Value {
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("no dates in our files")
}

/// What is wrong with a value, by the keywords that our schemas use; another keyword is an error.
fn faults(whole: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    let fail = |what: String| vec![format!("{place}: {what}")];
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let of_number = |holds: fn(f64, f64) -> bool| {
            value.as_f64().is_none_or(|number| holds(number, rule.as_f64().expect("a number")))
        };
        let of_size = |size: Option<usize>, holds: fn(u64, u64) -> bool| {
            size.is_none_or(|size| holds(size as u64, rule.as_u64().expect("a size")))
        };
        let length = value.as_str().map(|text| text.chars().count());
        let items = value.as_array().map(Vec::len);
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "$defs" => true,
            "$ref" => {
                let pointer = rule.as_str().expect("a pointer").trim_start_matches('#');
                found.extend(faults(whole, whole.pointer(pointer).expect("it leads somewhere"), value, place));
                true
            }
            "type" => {
                let names = rule.as_array().map_or_else(|| vec![rule.clone()], Clone::clone);
                names.iter().any(|name| match name.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("boolean") => value.is_boolean(),
                    Some("integer") => value.is_i64() || value.is_u64(),
                    Some("number") => value.is_number(),
                    other => panic!("type {other:?}"),
                })
            }
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => of_number(|number, limit| number >= limit),
            "maximum" => of_number(|number, limit| number <= limit),
            "minLength" => of_size(length, |length, limit| length >= limit),
            "maxLength" => of_size(length, |length, limit| length <= limit),
            "minItems" => of_size(items, |items, limit| items >= limit),
            "maxItems" => of_size(items, |items, limit| items <= limit),
            "minProperties" => of_size(value.as_object().map(|object| object.len()), |size, limit| size >= limit),
            // What they say is tested by the loader itself.
            "pattern" => true,
            "required" => rule
                .as_array()
                .expect("a list")
                .iter()
                .all(|key| value.as_object().is_none_or(|object| object.contains_key(key.as_str().expect("a key")))),
            "anyOf" => rule.as_array().expect("a list").iter().any(|one| faults(whole, one, value, place).is_empty()),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    found.extend(faults(whole, rule, item, &format!("{place}[]")));
                }
                true
            }
            "properties" => {
                for (key, one) in rule.as_object().expect("an object") {
                    if let Some(inner) = value.get(key) {
                        found.extend(faults(whole, one, inner, &format!("{place}.{key}")));
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let others = value.as_object().into_iter().flatten();
                for (key, inner) in others.filter(|(key, _)| !known.is_some_and(|known| known.contains_key(*key))) {
                    match rule {
                        Value::Bool(false) => found.push(format!("{place}: {key} is not known")),
                        _ => found.extend(faults(whole, rule, inner, &format!("{place}.{key}"))),
                    }
                }
                true
            }
            other => panic!("the schema uses {other}, which this test does not know"),
        };
        if !holds {
            found.extend(fail(format!("{keyword} {rule} does not hold for {value}")));
        }
    }
    found
}

#[test]
fn what_trefoil_prints_is_what_is_shipped() {
    for kind in ["site", "profile", "policy", "scenario"] {
        let output = Command::new(env!("CARGO_BIN_EXE_trefoil")).args(["schema", kind]).output().expect("it runs");
        let shipped = std::fs::read(root().join(format!("schemas/{kind}.schema.json"))).expect("a schema");
        assert!(output.status.success() && output.stdout == shipped, "{kind}");
    }
}

#[test]
fn every_example_is_valid() {
    let files = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder");
        let paths = entries.map(|entry| entry.expect("readable").path());
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect()
    };
    let check = |kind: &str, name: &Path, text: &str| {
        let schema = schema(kind);
        let found = faults(&schema, &schema, &document(text), "");
        assert!(found.is_empty(), "{}: {found:#?}", name.display());
    };
    for (kind, folder) in
        [("site", "examples"), ("profile", "profiles"), ("policy", "policy"), ("scenario", "scenarios")]
    {
        for file in files(folder) {
            check(kind, &file, &std::fs::read_to_string(&file).expect("readable"));
        }
    }
    let readme = include_str!("../README.md");
    let site = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a TOML example");
    check("site", Path::new("README.md"), site);
    let page = include_str!("../docs/policy.md");
    for (number, block) in page.split("```toml\n").skip(1).enumerate() {
        let text = block.split("```").next().expect("an end");
        check("policy", Path::new(&format!("docs/policy.md, block {}", number + 1)), text);
    }
    check("scenario", Path::new("docs/scoreboard.md"), example_scenario());
}

fn example_scenario() -> &'static str {
    let page = include_str!("../docs/scoreboard.md");
    page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example")
}

#[test]
fn the_example_of_the_scoreboard_page_is_a_good_scenario() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("page.toml");
    std::fs::write(&file, example_scenario()).expect("written");
    trefoil::config::load_scenario(&file).unwrap_or_else(|found| panic!("{found:#?}"));
}

#[test]
fn what_is_wrong_is_refused_by_the_schema_too() {
    let schema = schema("policy");
    for wrong in [
        "[[rule]]\nmode = \"drop\"\n",
        "[[rule]]\nname = \"a\"\nlink = \"dsl\"\n",
        "[[rule]]\nname = \"a\"\nmode = \"blance\"\n",
        "[[rule]]\nname = \"a\"\nlinks = []\n",
        "[[rule]]\nname = \"a\"\ndestination_port = 70000\n",
        "[[group]]\nname = \"a\"\n",
        "rule = 5\n",
    ] {
        assert!(!faults(&schema, &schema, &document(wrong), "").is_empty(), "{wrong}");
    }
}

#[test]
fn the_example_of_the_policy_page_is_good_and_its_tests_pass() {
    let page = include_str!("../docs/policy.md");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("page.toml");
    let text = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    std::fs::write(&file, text).expect("written");
    let policy = trefoil::config::load_policy(&[file], None).unwrap_or_else(|found| panic!("{found:#?}"));
    assert!(policy.warnings.is_empty(), "{:#?}", policy.warnings);
    assert!(policy.tests.len() >= 2 && policy.failures().is_empty(), "{:#?}", policy.failures());
}

/// The loader tells the keys that it knows where it is given one that it does not.
fn compare_keys(found: &[trefoil::config::Diagnostic], schema: &Value, places: &[(&str, &str)]) {
    let mut compared = BTreeSet::new();
    for finding in found.iter().filter(|finding| finding.what.starts_with("unknown key")) {
        let keys: BTreeSet<&str> = finding.instead.trim_start_matches("known: ").split(", ").collect();
        let table = finding.what.split_once(" in ").map_or("", |(_, table)| table);
        let (_, pointer) = places.iter().find(|(name, _)| *name == table).unwrap_or_else(|| panic!("{table}"));
        let named = schema.pointer(pointer).and_then(Value::as_object).unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!(keys, named.keys().map(String::as_str).collect(), "{}", finding.what);
        compared.insert(table);
    }
    assert_eq!(compared.len(), places.len(), "{found:#?}");
}

const UNKNOWN: &str = "zzzzzzzzzzzzzzzz = 1\n";

fn with_unknown(tables: &[&str]) -> String {
    let named = |table: &&str| format!("{table}\n{UNKNOWN}");
    UNKNOWN.to_string() + &tables.iter().map(named).collect::<String>()
}

#[test]
fn the_policy_schema_and_the_loader_know_the_same_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("p.toml");
    let tables = ["[[rule]]", "[[group]]", "[[application]]", "[[application.service]]", "[[sla]]", "[[test]]"];
    std::fs::write(&policy, with_unknown(&tables)).expect("written");
    let found = trefoil::config::load_policy(&[policy], None).expect_err("unknown keys");
    compare_keys(
        &found,
        &schema("policy"),
        &[
            ("", "/properties"),
            ("[[rule]]", "/properties/rule/items/properties"),
            ("[[group]]", "/properties/group/items/properties"),
            ("[[application]]", "/properties/application/items/properties"),
            ("[[application.service]]", "/properties/application/items/properties/service/items/properties"),
            ("[[sla]]", "/properties/sla/items/properties"),
            ("[[test]]", "/properties/test/items/properties"),
        ],
    );
}

#[test]
fn the_scenario_schema_and_the_loader_know_the_same_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = folder.path().join("s.toml");
    std::fs::write(&scenario, with_unknown(&["[link.a]", "[[event]]", "[[traffic]]"])).expect("written");
    let found = trefoil::config::load_scenario(&scenario).expect_err("unknown keys");
    compare_keys(
        &found,
        &schema("scenario"),
        &[
            ("", "/properties"),
            ("[link.a]", "/$defs/link/properties"),
            ("[[event]]", "/$defs/event/properties"),
            ("[[traffic]]", "/$defs/traffic/properties"),
        ],
    );
}

#[test]
fn the_site_schema_and_the_loader_know_the_same_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let site = folder.path().join("site.toml");
    let plain = [
        "[site]",
        "[names]",
        "[health]",
        "[steering]",
        "[ports]",
        "[routes]",
        "[dataplane]",
        "[control]",
        "[recording]",
    ];
    let deep = ["[wan.a]", "[connector.c]", "[connector.c.keepalive]", "[connector.c.probes]", "[connector.c.primary]"];
    let tunnel = ["[[connector.c.primary.tunnel]]"];
    std::fs::write(&site, with_unknown(&[&plain[..], &deep, &tunnel].concat())).expect("written");
    let found = trefoil::config::load(&site).expect_err("unknown keys");
    let pointers: Vec<String> =
        plain.iter().map(|name| format!("/properties/{}/properties", name.trim_matches(['[', ']']))).collect();
    let mut places: Vec<(&str, &str)> = plain.into_iter().zip(pointers.iter().map(String::as_str)).collect();
    places.extend([
        ("", "/properties"),
        ("[wan.a]", "/$defs/wan/properties"),
        ("[connector.c]", "/$defs/connector/properties"),
        ("[connector.c.keepalive]", "/$defs/keepalive/properties"),
        ("[connector.c.probes]", "/$defs/probes/properties"),
        ("[connector.c.primary]", "/$defs/role/properties"),
        ("[[connector.c.primary.tunnel]]", "/$defs/tunnel/properties"),
    ]);
    compare_keys(&found, &schema("site"), &places);
}
