// The markers of the computed windows of a range.
//
// params: quality (bucket), start, stop
// yields: one table, one row per computed window, `_time` its start, the fields of the
//         measurement `window` as columns
from(bucket: params.quality)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == "window")
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
    |> sort(columns: ["_time"])
