// The quality checks that failed.
//
// params: quality (bucket), start, stop
// yields: one table, one row per failed check, `_time` the start of its range,
//         `windows` how many windows that range has, `check` its name
from(bucket: params.quality)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == "check")
    |> filter(fn: (r) => r._field == "verdict" or r._field == "windows")
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => r.verdict == "fail" and exists r.windows)
    |> group()
