// The number of rows in each window, and of the readings they were computed from.
//
// params: downsampled (bucket), measurement, start, stop
// yields: `rows` and `readings`, each one row per window, `_time` its start
rows = () => from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == "readings")
    |> group(columns: ["_time"])

rows() |> count() |> group() |> yield(name: "rows")
rows() |> sum() |> group() |> yield(name: "readings")
