// Command influxd is InfluxDB 2.7, built from its published Go module for
// machines that have neither Docker nor the vendor's package.
//
// It has no web UI (its files are not part of the module); the HTTP API is whole.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	influxdb "github.com/influxdata/influxdb/v2"
	"github.com/influxdata/influxdb/v2/cmd/influxd/inspect"
	"github.com/influxdata/influxdb/v2/cmd/influxd/launcher"
	// The storage engine and its index register themselves when imported.
	_ "github.com/influxdata/influxdb/v2/tsdb/engine/tsm1"
	_ "github.com/influxdata/influxdb/v2/tsdb/index/tsi1"
	"github.com/spf13/cobra"
	"github.com/spf13/viper"
)

const module = "github.com/influxdata/influxdb/v2"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "influxd:", err)
		os.Exit(1)
	}
}

func run() error {
	version := serverVersion()
	influxdb.SetBuildInfo(version, "module", time.Now().UTC().Format(time.RFC3339))

	settings := viper.New()
	server, err := launcher.NewInfluxdCommand(context.Background(), settings)
	if err != nil {
		return err
	}
	inspection, err := inspect.NewCommand(settings)
	if err != nil {
		return err
	}
	server.AddCommand(inspection, &cobra.Command{
		Use:   "version",
		Short: "Print the version of the server",
		Run: func(*cobra.Command, []string) {
			fmt.Printf("InfluxDB %s (git: module)\n", version)
		},
	})
	server.SilenceUsage = true
	return server.Execute()
}

// serverVersion is the version of the InfluxDB module this binary was linked with.
func serverVersion() string {
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return "unknown"
}
