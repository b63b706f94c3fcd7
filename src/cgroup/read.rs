//! The formats of the kernel's statistics files (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/).

use super::dir::Dir;
use super::stats::{IoEntry, Pressure, Rdma, RdmaDevice, Stall};
use crate::error::Result;

/// Returns the file's text, empty if the file is missing.
pub(super) fn text(dir: &Dir, file: &str) -> Result<String> {
    Ok(dir.read_if(file)?.unwrap_or_default())
}

/// Returns a single number: u64::MAX for `max`, 0 if the file is missing.
pub(super) fn value(dir: &Dir, file: &str) -> Result<u64> {
    Ok(dir.read_if(file)?.map_or(0, |text| parse_value(&text)))
}

fn parse_value(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

pub(super) fn rdma(dir: &Dir) -> Result<Rdma> {
    Ok(Rdma { current: parse_rdma(&text(dir, "rdma.current")?), limit: parse_rdma(&text(dir, "rdma.max")?) })
}

/// Parses `mlx4_0 hca_handle=2 hca_object=max`.
fn parse_rdma(text: &str) -> Vec<RdmaDevice> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let mut device = RdmaDevice { device: fields.next()?.to_owned(), ..RdmaDevice::default() };
            for (key, value) in fields.filter_map(|f| f.split_once('=')) {
                let value = if value == "max" { u32::MAX } else { value.parse().unwrap_or(0) };
                match key {
                    "hca_handle" => device.handles = value,
                    "hca_object" => device.objects = value,
                    _ => {}
                }
            }
            Some(device)
        })
        .collect()
}

/// Parses `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
pub(super) fn io(text: &str) -> Vec<IoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (major, minor) = fields.next()?.split_once(':')?;
            let mut entry =
                IoEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoEntry::default() };
            let mut any = false;
            for (key, value) in fields.filter_map(|f| f.split_once('=')) {
                let Ok(value) = value.parse() else { continue };
                any = true;
                match key {
                    "rbytes" => entry.rbytes = value,
                    "wbytes" => entry.wbytes = value,
                    "rios" => entry.rios = value,
                    "wios" => entry.wios = value,
                    _ => {}
                }
            }
            any.then_some(entry)
        })
        .collect()
}

/// Returns None if the kernel does not account pressure.
pub(super) fn pressure(dir: &Dir, file: &str) -> Result<Option<Pressure>> {
    Ok(dir.read_if(file)?.map(|text| parse_pressure(&text)))
}

/// Parses `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let kind = fields.next();
        let mut stall = Stall::default();
        for (key, value) in fields.filter_map(|f| f.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        match kind {
            Some("some") => pressure.some = Some(stall),
            Some("full") => pressure.full = Some(stall),
            _ => {}
        }
    }
    pressure
}

/// Lists the page sizes of the hugetlb controller: the `2MB` of `hugetlb.2MB.<suffix>`.
pub(super) fn hugepage_sizes(dir: &Dir, suffix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.path()) else { return Vec::new() };
    let mut sizes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.strip_suffix('.')?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_lines_without_counters_are_left_out() {
        let entries = io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:1 \n");
        assert_eq!(entries, [IoEntry { major: 8, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 }]);
    }

    #[test]
    fn pressure_has_two_lines() {
        let p =
            parse_pressure("some avg10=1.50 avg60=0.20 avg300=0.00 total=1234\nfull avg10=0.00 total=7\n");
        assert_eq!(p.some.unwrap(), Stall { avg10: 1.5, avg60: 0.2, avg300: 0.0, total: 1234 });
        assert_eq!(p.full.unwrap().total, 7);
    }

    #[test]
    fn rdma_lines_and_no_limit() {
        let devices = parse_rdma("mlx4_0 hca_handle=2 hca_object=max\n");
        assert_eq!(devices, [RdmaDevice { device: "mlx4_0".into(), handles: 2, objects: u32::MAX }]);
        assert_eq!(parse_value("max\n"), u64::MAX);
    }
}
