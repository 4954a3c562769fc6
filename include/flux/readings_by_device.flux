// For every device: the number of windows with a row, and of readings.
//
// params: downsampled (bucket), measurement, start, stop
// yields: `windows` and `readings`, each one row per device
rows = () => from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == "readings")

rows() |> count() |> group() |> yield(name: "windows")
rows() |> sum() |> group() |> yield(name: "readings")
