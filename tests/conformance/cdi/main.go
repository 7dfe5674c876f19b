// SPDX-License-Identifier: Apache-2.0

// Asks the CDI reference library what it makes of a document and a container. One JSON request a line on standard
// input, one JSON answer a line on standard output; the test suite compares the answers with its own.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

type request struct {
	// Directory by directory, file name to content; a later directory has precedence.
	Layers []map[string]string `json:"layers"`
	Names  []string            `json:"names"`
	Config *oci.Spec           `json:"config"`
}

type answer struct {
	// File by file in the order of the layers, by name: empty for a valid document, else what is wrong with it.
	Verdicts   []map[string]string `json:"verdicts"`
	Unresolved []string            `json:"unresolved"`
	Error      string              `json:"error"`
	Config     *oci.Spec           `json:"config"`
}

func (asked request) judge(root string) (answer, error) {
	told := answer{Verdicts: []map[string]string{}}
	var directories []string
	for priority, layer := range asked.Layers {
		directory := filepath.Join(root, fmt.Sprint(priority))
		if err := os.Mkdir(directory, 0o755); err != nil {
			return told, err
		}
		directories = append(directories, directory)
		verdicts := map[string]string{}
		for name, content := range layer {
			path := filepath.Join(directory, name)
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				return told, err
			}
			verdicts[name] = ""
			if _, err := cdi.ReadSpec(path, priority); err != nil {
				verdicts[name] = err.Error()
			}
		}
		told.Verdicts = append(told.Verdicts, verdicts)
	}
	if asked.Config == nil {
		return told, nil
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(directories...), cdi.WithAutoRefresh(false))
	if err != nil {
		return told, err
	}
	told.Config = asked.Config
	if told.Unresolved, err = cache.InjectDevices(told.Config, asked.Names...); err != nil {
		told.Error = err.Error()
	}
	return told, nil
}

func serve(line []byte) (told answer, err error) {
	var asked request
	if err = json.Unmarshal(line, &asked); err != nil {
		return told, err
	}
	root, err := os.MkdirTemp("", "cdi-conformance-")
	if err != nil {
		return told, err
	}
	defer os.RemoveAll(root)
	return asked.judge(root)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		told, err := serve(lines.Bytes())
		if err == nil {
			err = out.Encode(told)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
