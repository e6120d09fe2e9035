use std::io::Read;
use std::path::Path;

use crate::config::{self, FlowLine, FlowWords};

/// A file of flows, in bytes: lines that are longer than any flow, as many as may be read.
const BYTES_MAX: u64 = 64 << 20;

/// Wrong lines that are told; more would not be read.
const WRONG_SHOWN: usize = 50;

/// The flows of a file, one a line; `#` begins a comment. The error is every line that is none.
pub(super) fn read_flows(file: &Path, words: &FlowWords, most: usize) -> Result<Vec<FlowLine>, String> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(BYTES_MAX + 1).read_to_string(&mut text));
    let read = read.map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    if read as u64 > BYTES_MAX {
        return Err(format!("{} is larger than {} MiB", file.display(), BYTES_MAX >> 20));
    }
    let (mut flows, mut wrong, mut more) = (Vec::new(), Vec::new(), 0);
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        if flows.len() == most {
            return Err(format!("{} has more than {most} flows", file.display()));
        }
        match config::flow_line(line, words) {
            Ok(flow) => flows.push(flow),
            Err(_) if wrong.len() == WRONG_SHOWN => more += 1,
            Err(complaint) => {
                let place = format!("{}:{}", file.display(), number + 1);
                wrong.push(format!("{place} {} ({})", complaint.what, complaint.instead));
            }
        }
    }
    if more > 0 {
        wrong.push(format!("{more} more lines are wrong"));
    }
    match wrong.len() {
        0 => Ok(flows),
        1 => Err(wrong.concat()),
        _ => Err(format!("{} is not right:\n{}", file.display(), wrong.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_line_by_line_and_all_wrong_ones_are_told_with_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flows.txt");
        std::fs::write(&file, "# seen on Monday\ntcp 10.0.0.1:5 10.0.0.2:80 dscp=ef # web\n\nudp 10.0.0.1 1\ntcp 10.0.0.1:5 10.0.0.2:80\nping\n")
            .unwrap();
        let reason = read_flows(&file, &FlowWords::default(), 10).unwrap_err();
        let lines: Vec<&str> = reason.lines().collect();
        assert!(lines.len() == 3 && lines[2].contains("flows.txt:6 \"ping\" is not a flow"), "{reason}");
        assert!(
            lines[1]
                .ends_with("flows.txt:4 \"1\" is not an address (such as \"10.20.1.5:443\" or \"[2001:db8::1]:443\")"),
            "{reason}"
        );
        std::fs::write(&file, "tcp 10.0.0.1:5 10.0.0.2:80 dscp=ef # web\n").unwrap();
        assert_eq!(read_flows(&file, &FlowWords::default(), 1).unwrap()[0].flow.dscp.value(), 46);
        assert!(read_flows(&file, &FlowWords::default(), 0).is_err());
    }
}
