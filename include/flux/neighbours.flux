// The values of the rows nearest to a range, of every device: the last one before the range, and
// the first one after it.
//
// params: downsampled (bucket), measurement, fields (at least one), since (how far to look back),
//         start, stop (the range), end (how far to look ahead)
// yields: `before` and `after`, each one table a field, one row per device with a value, `_time`
//         the window's start
//
// One `from` a field, so that the storage engine evaluates `last` and `first`. Grouped by field
// before they are joined, there are a few tables to join, not a few per device: that takes less
// time than a query for each field.
import "array"

values = (field, start, stop) => from(bucket: params.downsampled)
    |> range(start: start, stop: stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == field)

by_field = (tables=<-) => tables
    |> drop(columns: ["_start", "_stop", "_measurement"])
    |> group(columns: ["_field"])

// `union` refuses a single stream.
joined = (tables) => if length(arr: tables) == 1 then tables[0] else union(tables: tables)

joined(
    tables: array.map(
        arr: params.fields,
        fn: (x) => values(field: x, start: params.since, stop: params.start) |> last() |> by_field(),
    ),
)
    |> yield(name: "before")

joined(
    tables: array.map(
        arr: params.fields,
        fn: (x) => values(field: x, start: params.stop, stop: params.end) |> first() |> by_field(),
    ),
)
    |> yield(name: "after")
