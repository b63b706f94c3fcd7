//! The program with a table and the one by libseccomp alone agree.

use super::*;
use crate::seccomp::{arch, compile, Cache};
use std::time::Instant;

/// The verdict of libseccomp's program alone, preceded by the rule about newer calls.
fn reference(
    program: &[SockFilter],
    newest: &[(u32, u32, u32)],
    arch: u32,
    number: u32,
    arguments: [u64; 6],
) -> u32 {
    let newer = newest.iter().any(|(of, newest, end)| *of == arch && number > *newest && number <= *end);
    if newer {
        return errno(libc::ENOSYS);
    }
    simulate(program, arch, number, arguments)
}

/// Runs both programs on every number, and on the arguments that rules examine.
fn compare(name: &str, profile: &Seccomp) {
    let architectures = compile::architectures(profile);
    let whole = compile::by_libseccomp(profile, &architectures, |_| true).unwrap();
    let ours = compile(profile).unwrap().filter.program;
    let newest: Vec<_> = architectures
        .iter()
        .map(|arch| {
            let names = profile.rules.iter().flat_map(|rule| &rule.names);
            let calls = names.filter_map(|n| libseccomp::ScmpSyscall::from_name_by_arch(n, *arch).ok());
            let newest = calls.map(|call| call.as_raw_syscall()).max().unwrap() as u32;
            let end = if *arch == libseccomp::ScmpArch::X8664 { X32_BIT - 1 } else { u32::MAX };
            (arch::audit(*arch).unwrap(), newest, end)
        })
        .collect();
    // x32 begins where x86_64 ends, and its numbers have the bit set.
    let numbers = (0..1500).chain(X32_BIT - 2..X32_BIT + 1500).chain([
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX - 1,
        u32::MAX,
    ]);
    let mut compared = 0;
    for number in numbers {
        for arch in [X86_64, I386, AARCH64, 0x4000_0028, 0x16] {
            for argument in [0, 1, 2, 3, 5, 8, 0x0002_0000, 0xffff_ffff, 1 << 40] {
                let arguments = [argument, 0, argument, 0, 0, 0];
                let expected = reference(&whole, &newest, arch, number, arguments);
                let verdict = simulate(&ours, arch, number, arguments);
                assert_eq!(verdict, expected, "{name}: {arch:#x} {number} {argument:#x}");
                compared += 1;
            }
        }
    }
    assert!(compared > 100_000);
    println!("{name}: {} instructions, of libseccomp {}", ours.len(), whole.len());
}

#[test]
fn the_table_and_libseccomp_are_of_one_mind_about_every_call() {
    let conditional = |name: &str, index: usize, op: &str, value: u64| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": index, "op": op, "value": value}]});
    let extra = json!([
        conditional("personality", 0, "SCMP_CMP_EQ", 8),
        conditional("personality", 0, "SCMP_CMP_EQ", 0xffff_ffff),
        conditional("clone", 0, "SCMP_CMP_MASKED_EQ", 0x7e02_0000),
        conditional("unshare", 0, "SCMP_CMP_LT", 3),
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["reboot", "swapon"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["chown32", "socketcall", "ipc", "clock_gettime64", "mmap2"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["ioprio_get"], "action": "SCMP_ACT_ERRNO"},
    ]);
    let all = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
    for count in [0, 1, 2, 3, 5] {
        let json = allow_list(extra.clone(), json!(all[..count]));
        let profile = Seccomp::check(&serde_json::from_value(json).unwrap()).unwrap();
        compare(&format!("{count} architectures"), &profile);
    }
}

/// The profiles that containerd, docker and the CRI plugin generate.
fn golden() -> Vec<(String, Seccomp)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/specs");
    let mut profiles: Vec<(String, Seccomp)> = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let profile = &spec["linux"]["seccomp"];
        if !profile.is_null() {
            let profile = Seccomp::check(&serde_json::from_value(profile.clone()).unwrap()).unwrap();
            if profiles.iter().all(|(_, known)| *known != profile) {
                profiles.push((path.file_stem().unwrap().to_string_lossy().into_owned(), profile));
            }
        }
    }
    profiles
}

#[test]
fn the_profiles_of_docker_and_containerd_mean_the_same() {
    let profiles = golden();
    let has = |name: &str| profiles.iter().any(|(of, _)| of.starts_with(name));
    assert!(has("docker-") && has("ctr-") && has("cri-"));
    for (name, profile) in &profiles {
        compare(name, profile);
    }
}

#[test]
fn a_default_profile_is_compiled_in_a_millisecond_or_two() {
    let long = |profile: &Seccomp| profile.rules.iter().map(|rule| rule.names.len()).sum::<usize>() > 300;
    let profiles: Vec<_> = golden().into_iter().filter(|(_, profile)| long(profile)).collect();
    assert!(!profiles.is_empty());
    for (name, profile) in profiles {
        let time = |work: &dyn Fn()| {
            let runs = (0..10).map(|_| {
                let started = Instant::now();
                work();
                started.elapsed()
            });
            runs.min().unwrap()
        };
        let architectures = compile::architectures(&profile);
        let cache = Cache::default();
        let ours = time(&|| drop(compile(&profile).unwrap()));
        let libseccomp = time(&|| drop(compile::by_libseccomp(&profile, &architectures, |_| true).unwrap()));
        let cached = time(&|| drop(cache.compile(&profile).unwrap()));
        println!("{name}: {ours:?}, by libseccomp alone {libseccomp:?}, from the cache {cached:?}");
        assert!(ours < libseccomp && cached < libseccomp);
    }
}
