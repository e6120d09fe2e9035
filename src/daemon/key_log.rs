use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::crypto::Encryption;
use crate::edge::KeyRecord;

/// Keys for a protocol analyser, in Wireshark's own table formats: `ikev2_decryption_table` and
/// `esp_sa` in one directory, which may be a Wireshark profile. Whoever reads them reads all
/// traffic; only the owner may.
pub struct KeyLog {
    ike: File,
    esp: File,
}

impl KeyLog {
    pub fn create(directory: &Path) -> io::Result<KeyLog> {
        std::fs::create_dir_all(directory)?;
        let open = |name: &str| {
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(directory.join(name))
        };
        Ok(KeyLog { ike: open("ikev2_decryption_table")?, esp: open("esp_sa")? })
    }

    pub fn record(&mut self, record: &KeyRecord) -> io::Result<()> {
        match record {
            KeyRecord::Ike(keys) => writeln!(
                self.ike,
                "{:016x},{:016x},{},{},\"{}\",,,\"NONE [RFC4306]\"",
                keys.initiator_spi,
                keys.responder_spi,
                hex(keys.encryption_initiator.expose()),
                hex(keys.encryption_responder.expose()),
                ike_name(keys.encryption)
            ),
            KeyRecord::Esp { source, destination, spi, encryption, key } => writeln!(
                self.esp,
                "\"IPv4\",\"{source}\",\"{destination}\",\"{spi}\",\"{}\",\"0x{}\",\"NULL\",\"\",\"32-bit\",\"0x\"",
                esp_name(*encryption),
                hex(key.expose())
            ),
        }
    }
}

fn ike_name(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::AesGcm128 => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        Encryption::AesGcm256 => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        Encryption::AesCbc128 => "AES-CBC-128 [RFC3602]",
        Encryption::AesCbc256 => "AES-CBC-256 [RFC3602]",
    }
}

fn esp_name(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::AesGcm128 | Encryption::AesGcm256 => "AES-GCM with 16 octet ICV [RFC4106]",
        Encryption::AesCbc128 | Encryption::AesCbc256 => "AES-CBC [RFC3602]",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
