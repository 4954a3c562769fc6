// The downsampled rows of a range, one line each.
//
// params: downsampled (bucket), measurement, start, stop
// yields: one table, one row a device and window, `_time` the window's start
from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement)
    |> drop(columns: ["_start", "_stop"])
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> group()
