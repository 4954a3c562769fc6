// The values of a field that need not be in every reading: only where the last reading of
// the window has it, so that a row never mixes two readings.
//
// params: raw, downsampled (buckets), measurement, start, stop, window,
//         id (the tag that names the device), counted (a field that every reading has),
//         field (the one to write), tags (fixed tags)
// yields: one row, `_value` the number of values that were written
//
// `last` keeps the time of the reading, by which the two fields are matched.
import "experimental"

newest = (name) => from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == name)
    |> window(every: params.window)
    |> last()

union(
    tables: [
        newest(name: params.counted) |> set(key: "_field", value: "whole"),
        newest(name: params.field) |> set(key: "_field", value: "part"),
    ],
)
    |> group(columns: [params.id, "_measurement"])
    |> pivot(rowKey: ["_start", "_time"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => exists r.whole and exists r.part)
    |> map(fn: (r) => ({r with _time: r._start, _value: r.part, _field: params.field}))
    |> drop(columns: ["_start", "_stop", "whole", "part"])
    |> group(columns: [params.id, "_measurement", "_field"])
    |> experimental.set(o: params.tags)
    |> to(bucket: params.downsampled)
    |> group()
    |> count()
