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
        // Always a new file: one that is there may be a link, be open elsewhere, or be readable by all.
        let open = |name: &str| {
            let path = directory.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) => {}
                Ok(()) => tracing::warn!(file = %path.display(), "an earlier key log is replaced"),
            }
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)
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
        // Wireshark opens no IKE message of this one.
        Encryption::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
        Encryption::AesCbc128 => "AES-CBC-128 [RFC3602]",
        Encryption::AesCbc256 => "AES-CBC-256 [RFC3602]",
    }
}

fn esp_name(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::AesGcm128 | Encryption::AesGcm256 => "AES-GCM with 16 octet ICV [RFC4106]",
        Encryption::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
        Encryption::AesCbc128 | Encryption::AesCbc256 => "AES-CBC [RFC3602]",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_go_into_files_of_our_own_that_only_the_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (ike, esp) = (folder.path().join("ikev2_decryption_table"), folder.path().join("esp_sa"));
        let elsewhere = folder.path().join("elsewhere");
        // One that everybody may read, and that somebody has open; one that leads elsewhere.
        std::fs::write(&ike, "old").unwrap();
        std::fs::set_permissions(&ike, std::fs::Permissions::from_mode(0o666)).unwrap();
        let mut spy = File::open(&ike).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &esp).unwrap();
        let mut log = KeyLog::create(folder.path()).unwrap();
        log.ike.write_all(b"secret").unwrap();
        log.esp.write_all(b"secret").unwrap();
        for file in [&ike, &esp] {
            let metadata = std::fs::symlink_metadata(file).unwrap();
            assert!(metadata.is_file(), "{}", file.display());
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        assert!(!elsewhere.exists());
        assert_eq!(io::read_to_string(&mut spy).unwrap(), "old");
    }
}
