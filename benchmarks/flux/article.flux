// The article's way: a pivot of every reading first, then the last row of each generator.
//
// params: bucket, measurement, start, stop
from(bucket: params.bucket)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement)
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> group(columns: ["generatorID"])
    |> last(column: "fuel")
