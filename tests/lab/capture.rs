//! Captures, and tshark as a second opinion on what is in them.
//!
//! With `--debug-key-log DIRECTORY` the daemon writes the two tables that Wireshark and tshark (4.0 and
//! later) read from the folder that `WIRESHARK_CONFIG_DIR` names; lines are only ever appended.
//!
//! `ikev2_decryption_table`, one line an IKE SA; 16 hex digits an SPI, keys in hex without 0x and
//! with the salt of 4 octets behind an AES-GCM key (SK_ei, SK_er), empty fields for SK_ai, SK_ar:
//!
//! ```text
//! 571c9fd9e31a2f1d,46e150f142039bfa,<SK_ei>,<SK_er>,"AES-GCM-256 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"
//! ```
//!
//! `esp_sa`, one line a direction of a Child SA; the addresses are the outer ones of the packets
//! (or `*`), the key is again key and salt:
//!
//! ```text
//! "IPv4","192.0.2.2","198.51.100.2","0x10e8af83","AES-GCM with 16 octet ICV [RFC4106]","0x<key>","NULL",""
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use super::namespace::Namespace;
use super::process::{PATIENCE, Process, wait_for};

/// Packets of one interface on their way into a file.
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    pub fn start(namespace: &Namespace, interface: &str, file: PathBuf) -> Capture {
        let mut command = namespace.command("dumpcap");
        command.args(["-q", "-i", interface, "-w"]).arg(&file);
        let process = Process::start(&mut command, &file.with_extension("log"));
        wait_for("dumpcap captures", PATIENCE, || file.exists().then_some(()));
        Capture { process, file }
    }

    /// Ends the capture with everything written out.
    pub fn finish(mut self) -> PathBuf {
        self.process.stop(PATIENCE);
        self.file.clone()
    }
}

/// What tshark makes of a capture with the keys of a debug key log.
#[derive(Debug, Default)]
pub struct Dissection {
    pub ike_decrypted: usize,
    pub esp_decrypted: usize,
    /// Anything encrypted that it could not open, and whatever it calls malformed or an error.
    pub complaints: Vec<String>,
}

/// How many packets inside ESP fit this filter of Wireshark's. Every ESP packet of the capture must open, or
/// what it hides would not be counted.
pub fn inside(capture: &Path, keys: &Path, filter: &str) -> usize {
    let sealed = matching(capture, keys, "esp && !esp.icv_good == 1");
    assert!(sealed.is_empty(), "{} packets do not open, as {}", sealed.len(), sealed[0]);
    matching(capture, keys, &format!("esp && {filter}")).len()
}

pub fn dissect(capture: &Path, keys: &Path) -> Dissection {
    let lines = |filter: &str| matching(capture, keys, filter);
    let mut complaints = lines("isakmp.enc.data && !isakmp.enc.decrypted");
    complaints.extend(lines("esp && !esp.icv_good == 1"));
    // The user-space ESP of strongSwan may send out of order; we may not.
    complaints.extend(lines("ip.src == 192.0.2.0/24 && esp.sequence-analysis.wrong-sequence-number"));
    // Warnings and errors of what is ours: IKE, ESP and the packets inside. A ping may be under way
    // when a capture ends.
    complaints.extend(lines(
        "(isakmp || esp) && !esp.sequence-analysis.wrong-sequence-number && !icmp.resp_not_found \
         && (_ws.malformed || _ws.expert.severity >= 6291456)",
    ));
    Dissection {
        ike_decrypted: lines("isakmp.enc.decrypted").len(),
        esp_decrypted: lines("esp.icv_good == 1 && esp.contained_data").len(),
        complaints,
    }
}

fn matching(capture: &Path, keys: &Path, filter: &str) -> Vec<String> {
    let output = Command::new("tshark")
        .env("WIRESHARK_CONFIG_DIR", keys)
        .args(["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE", "-r"])
        .arg(capture)
        .args(["-Y", filter])
        .output()
        .expect("tshark");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !errors.contains("rror"), "tshark: {errors}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
