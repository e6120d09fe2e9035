use std::path::Path;

use crate::config::{self, FlowLine, FlowWords};

/// The flows of a file, one a line; `#` begins a comment.
pub(super) fn read_flows(file: &Path, words: &FlowWords, most: usize) -> Result<Vec<FlowLine>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let mut flows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        if flows.len() == most {
            return Err(format!("{} has more than {most} flows", file.display()));
        }
        let at = || format!("{}:{}", file.display(), number + 1);
        let flow = config::flow_line(line, words);
        flows.push(flow.map_err(|complaint| format!("{} {} ({})", at(), complaint.what, complaint.instead))?);
    }
    Ok(flows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_line_by_line_and_a_wrong_one_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flows.txt");
        std::fs::write(&file, "# seen on Monday\ntcp 10.0.0.1:5 10.0.0.2:80 dscp=ef # web\n\nudp 10.0.0.1 1\n")
            .unwrap();
        let reason = read_flows(&file, &FlowWords::default(), 10).unwrap_err();
        assert!(
            reason
                .ends_with("flows.txt:4 \"1\" is not an address (such as \"10.20.1.5:443\" or \"[2001:db8::1]:443\")"),
            "{reason}"
        );
        std::fs::write(&file, "tcp 10.0.0.1:5 10.0.0.2:80 dscp=ef # web\n").unwrap();
        assert_eq!(read_flows(&file, &FlowWords::default(), 1).unwrap()[0].flow.dscp.value(), 46);
        assert!(read_flows(&file, &FlowWords::default(), 0).is_err());
    }
}
