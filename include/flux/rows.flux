// The downsampled rows of a range, one line each.
//
// params: downsampled (bucket), measurement, start, stop, id (the field with a device's id)
// yields: one table, one row a device and window, `_time` the window's start, without the
//         fixed tags
//
// Grouped by field first, `pivot` has ten tables to join, not ten for every device. That
// takes half the time for one window.
from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement)
    |> group(columns: ["_field"])
    |> drop(columns: ["_start", "_stop", "_measurement"])
    |> pivot(rowKey: ["_time", params.id], columnKey: ["_field"], valueColumn: "_value")
