//! Sealing and opening one packet: every kind of suite, every backend, three sizes, one core.
//! Opening includes a copy of the packet into its place, which at these sizes takes 2 to 20 ns.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trefoil::crypto::{Backend, Encryption, Integrity, PacketCipher, PacketSuite};

/// SPI and sequence number.
const CLEAR_LEN: usize = 8;
/// Bytes of the encrypted part, before it is filled up to whole blocks.
const SIZES: [usize; 3] = [64, 512, 1_400];
/// The others differ from these by key length alone.
const SUITES: [(Encryption, Option<Integrity>); 7] = [
    (Encryption::AesGcm128, None),
    (Encryption::AesGcm256, None),
    (Encryption::ChaCha20Poly1305, None),
    (Encryption::AesCbc128, Some(Integrity::Sha1)),
    (Encryption::AesCbc256, Some(Integrity::Sha256)),
    (Encryption::AesCbc256, Some(Integrity::Sha384)),
    (Encryption::AesCbc256, Some(Integrity::Sha512)),
];

fn ciphers(c: &mut Criterion) {
    for (encryption, integrity) in SUITES {
        let suite = PacketSuite::new(encryption, integrity).expect("they go together");
        let mut group = c.benchmark_group(suite.to_string());
        for size in SIZES {
            let body = size.next_multiple_of(suite.alignment());
            let mut packet = vec![7; CLEAR_LEN + suite.iv_len() + body + suite.icv_len()];
            group.throughput(Throughput::Bytes(size as u64));
            for backend in Backend::ALL {
                let cipher = PacketCipher::new(backend, suite, &vec![7; suite.keymat_len()]).expect("the key fits");
                let mut sequence = 0;
                group.bench_function(BenchmarkId::new(format!("seal {backend}"), size), |b| {
                    b.iter(|| {
                        sequence += 1;
                        cipher.seal(sequence, CLEAR_LEN, black_box(&mut packet)).expect("it fits");
                    });
                });
                let mut place = packet.clone();
                group.bench_function(BenchmarkId::new(format!("open {backend}"), size), |b| {
                    b.iter(|| {
                        place.copy_from_slice(&packet);
                        cipher.open(CLEAR_LEN, black_box(&mut place)).expect("authentic").len()
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = crypto;
    config = Criterion::default()
        .measurement_time(Duration::from_millis(800))
        .warm_up_time(Duration::from_millis(200));
    targets = ciphers
}
criterion_main!(crypto);
