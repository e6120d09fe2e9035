use super::*;

#[test]
fn a_recording_of_a_later_version_is_refused_and_its_single_lines_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("0000000001.trefoil.gz");
    let write = |texts: &[&str]| {
        let mut block = Block::new(1, 0, ZERO);
        for text in texts {
            let line: Result<Line, _> = serde_json::from_str(text);
            match line {
                Ok(line) => assert!(block.push(&line)),
                Err(_) => block.push_text(text),
            }
        }
        std::fs::write(&file, block.seal().unwrap()).unwrap();
    };
    write(&[r#"{"at":1,"left_out":{"flows":1}}"#, r#"{"at":2,"telepathy":{}}"#, r#"{"at":3,"left_out":{"flows":2}}"#]);
    let told = report(folder.path());
    assert_eq!((told.left_out, told.troubles.len()), (3, 1), "{:?}", told.troubles);
    assert!(told.troubles[0].contains("a line is not understood: "), "{:?}", told.troubles);
    write(&[r#"{"at":1,"opened":{"format":2,"version":"9.0.0"}}"#]);
    let error = replay(&Reader::open(folder.path()).unwrap(), None, 0).unwrap_err();
    assert!(error.to_string().contains("recorded by trefoil 9.0.0 in format 2"), "{error}");
    assert!(explain_at(&Reader::open(&file).unwrap(), When::Ago(Duration::ZERO), ZERO, key(), None).is_err());
}

#[test]
fn a_line_of_another_kind_costs_no_decision_and_one_of_a_known_kind_all_until_everything_is_told_again() {
    for (odd, gaps) in [(r#"{"at":1,"telepathy":{}}"#, 0), (r#"{"at":1,"fact":{"is":"guessed"}}"#, 1), ("?", 1)] {
        let (disk, plan) = (Memory::default(), plan());
        let mut writer = writer(&disk, &plan);
        uneventful(&mut writer, &plan, 1, 200);
        writer.finish(seconds(200));
        let whole = report(on_disk(&disk).path());
        let folder = on_disk(&disk);
        let mut block = Block::new(9, 0, ZERO);
        for (number, part) in Reader::open(folder.path()).unwrap().parts(0).enumerate() {
            if let Part::Line(line) = part.unwrap() {
                assert!(block.push(&line));
            }
            if number == 40 {
                block.push_text(odd);
            }
        }
        std::fs::write(folder.path().join("0000000001.trefoil.gz"), block.seal().unwrap()).unwrap();
        let told = report(folder.path());
        assert_eq!((told.troubles.len(), told.differences.len()), (1 + gaps, 0), "{:?}", told.troubles);
        assert_eq!(told.not_compared > 0, gaps > 0, "{odd}: {told:?}");
        assert_eq!(told.decisions == whole.decisions, gaps == 0);
        assert!(told.to_ms == whole.to_ms && told.decisions > 0);
    }
}

#[test]
fn fields_that_a_later_version_adds_are_passed_over_and_those_that_an_older_one_lacks_have_their_defaults() {
    let (disk, plan) = (Memory::default(), plan());
    let mut writer = writer(&disk, &plan);
    uneventful(&mut writer, &plan, 1, 100);
    writer.finish(seconds(100));
    let whole = report(on_disk(&disk).path());
    let folder = on_disk(&disk);
    let mut block = Block::new(9, 0, ZERO);
    for part in Reader::open(folder.path()).unwrap().parts(0) {
        let Part::Line(line) = part.unwrap() else { continue };
        let mut value = serde_json::to_value(&line).unwrap();
        later(&mut value);
        value["seen_by"] = serde_json::json!("a later version");
        let again: Line = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"));
        assert_eq!(again, *line, "what is not known says nothing");
        block.push(&line);
    }
    let told = {
        std::fs::write(folder.path().join("0000000001.trefoil.gz"), block.seal().unwrap()).unwrap();
        report(folder.path())
    };
    assert_eq!((told.decisions, told.equal, told.troubles.len()), (whole.decisions, whole.equal, 0));
    // As the first version wrote them.
    let first = [
        r#"{"at":5,"published":{"generation":1,"policy_epoch":0,"minute":0,"active":["primary"],"paths":[]}}"#,
        r#"{"at":5,"fact":{"is":"followed"}}"#,
        r#"{"at":5,"told":{"what":"verdict","of":"pop/primary/fibre"}}"#,
    ];
    for text in first {
        let line: Line = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(line.at, Moment::from_nanos(5));
    }
}

/// Every object of a line with a field that nobody knows.
fn later(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(later);
            // Of an enum's value, the one field names it.
            if fields.len() > 1 && !fields.contains_key("nanos") {
                fields.insert("added_later".to_owned(), serde_json::json!([{ "x": 1 }]));
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(later),
        _ => {}
    }
}
