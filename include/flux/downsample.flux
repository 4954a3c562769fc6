// One row per device and window: the values of its last reading, and the number of readings.
//
// params: raw, downsampled (buckets), measurement, start, stop, window,
//         counted (a field that every reading has), optional (fields that need not be
//         in every reading: downsample_optional.flux writes those), tags (fixed tags),
//         id (the field with a device's id), tagged (`id` and the names of the fixed tags),
//         series (`_measurement` and those)
// yields: one row per window, `_time` its start, `_value` the number of rows in it
//
// The storage engine evaluates an `aggregateWindow` directly after the filter: it returns one
// value per window and series instead of every reading. It does so only if nothing else reads
// from the same `from`, so `readings` is a function. `contains` is evaluated for every row, so
// it is left out if no field is optional: it would take more than a third of the time.
//
// The rest takes time per table and per point. So all devices are in one table per field, and
// the fields of a row in one point (`experimental.to` writes every column as a field).
import "experimental"

readings = () => from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement)

required = if length(arr: params.optional) == 0 then
    (tables=<-) => tables
else
    (tables=<-) => tables |> filter(fn: (r) => not contains(value: r._field, set: params.optional))

readings()
    |> aggregateWindow(every: params.window, fn: last, timeSrc: "_start", createEmpty: false)
    |> required()
    |> group(columns: ["_measurement", "_field"])
    |> pivot(rowKey: ["_time", params.id], columnKey: ["_field"], valueColumn: "_value")
    |> experimental.set(o: params.tags)
    |> group(columns: params.series)
    |> experimental.to(bucket: params.downsampled)
    |> filter(fn: (r) => false)
    |> yield(name: "values")

readings()
    |> filter(fn: (r) => r._field == params.counted)
    |> aggregateWindow(every: params.window, fn: count, timeSrc: "_start", createEmpty: false)
    |> group()
    |> set(key: "_field", value: "readings")
    |> experimental.set(o: params.tags)
    |> to(bucket: params.downsampled, tagColumns: params.tagged)
    |> group(columns: ["_time"])
    |> count()
    |> group()
    |> yield(name: "rows")
