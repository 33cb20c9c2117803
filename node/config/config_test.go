package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bulwark/node/config"
)

func write(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bulwark.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheLaterWins(t *testing.T) {
	t.Parallel()
	file := write(t, "data = '/from/file'\nlisten = 'file:1'\ncluster-listen = 'file:2'\nrequest-timeout = '7s'\ntls-names = ['a.example']\n")
	env := []string{"PATH=/bin", "BULWARK_LISTEN=env:1", "BULWARK_CLUSTER_LISTEN=env:2", "BULWARK_TLS_NAMES=b.example, 10.0.0.1",
		"BULWARK_TOKEN=x", "BULWARK_SERVICE_HOST=10.1.1.1", "BULWARK_PORT_8443_TCP=tcp://10.1.1.1:8443"}
	c, err := config.Load(file, env, map[string]string{"listen": "flag:1", "demo": "true"})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Data, want.Listen, want.ClusterListen, want.RequestTimeout = "/from/file", "flag:1", "env:2", 7*time.Second
	want.TLSNames, want.Demo, want.KeyFile = []string{"b.example", "10.0.0.1"}, true, "/from/file.key"
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	c, err := config.Load("", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.KeyFile != "bulwark-data.key" {
		t.Errorf("key file %q", c.KeyFile)
	}
	c, err = config.Load("", []string{"BULWARK_DATA=."}, nil)
	if err != nil || filepath.Base(c.KeyFile) != "config.key" {
		t.Errorf("key file of the folder itself: %q, %v", c.KeyFile, err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, file string
		env        string
		flag       [2]string
		want       string
	}{
		{name: "typo in the file", file: "listn = 'x:1'", want: `unknown setting "listn": did you mean listen?`},
		{name: "another case", file: "Listen = 'x:1'", want: `unknown setting "Listen": did you mean listen?`},
		{name: "nothing near", file: "[database]\nurl = 'x'", want: "see bulwark serve --help"},
		{name: "not toml", file: "listen = \n", want: "line 1:"},
		{name: "twice", file: "listen='a:1'\nlisten='a:1'", want: "line 2:"},
		{name: "wrong type", file: "demo = 'yes'", want: "demo"},
		{name: "typo in the environment", env: "BULWARK_LISTN=x:1", want: `unknown variable "BULWARK_LISTN": did you mean BULWARK_LISTEN?`},
		{name: "dash in the environment", env: "BULWARK_CLUSTER-LISTEN=x:1", want: "did you mean BULWARK_CLUSTER_LISTEN?"},
		{name: "bad duration", env: "BULWARK_IDLE_TIMEOUT=soon", want: "BULWARK_IDLE_TIMEOUT: must be a length of time"},
		{name: "bad address", flag: [2]string{"listen", "8443"}, want: `listen: "8443" is not HOST:PORT, for example localhost:8443`},
		{name: "bad port", flag: [2]string{"listen", "x:70000"}, want: "is not HOST:PORT"},
		{name: "one port for both", flag: [2]string{"cluster-listen", "localhost:8443"}, want: "must not be the same as listen"},
		{name: "unknown flag", flag: [2]string{"lisen", "x"}, want: "did you mean listen?"},
		{name: "seal", flag: [2]string{"seal", "hsm"}, want: `seal: "hsm" is not one of file, passphrase, shamir`},
		{name: "key inside", flag: [2]string{"key-file", "bulwark-data/root.key"}, want: "inside the data folder"},
		{name: "passphrase inside", flag: [2]string{"passphrase-file", "bulwark-data/x/y"}, want: "inside the data folder"},
		{name: "url", flag: [2]string{"public-url", "http://x"}, want: "is not of the form https://host"},
		{name: "url with a path", flag: [2]string{"public-url", "https://x/y"}, want: "is not of the form https://host"},
		{name: "names", flag: [2]string{"tls-names", "ok.example,bad_name"}, want: `"bad_name" is not a host name`},
		{name: "contact", flag: [2]string{"security-contact", "security@x"}, want: "is not of the form mailto:"},
		{name: "contact of two lines", flag: [2]string{"security-contact", "mailto:a@b\nContact: c"}, want: "is not of the form mailto:"},
		{name: "cost", flag: [2]string{"bcrypt-cost", "31"}, want: "31 is not between 4 and 20"},
		{name: "rate", flag: [2]string{"rate-limit", "NaN"}, want: "NaN is not between"},
		{name: "level", flag: [2]string{"log-level", "loud"}, want: "is not one of debug, info, warn, error"},
		{name: "no data", flag: [2]string{"data", ""}, want: "data: must not be empty"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file, flags := "", map[string]string{}
			if c.file != "" {
				file = write(t, c.file)
			}
			if c.flag[0] != "" {
				flags[c.flag[0]] = c.flag[1]
			}
			_, err := config.Load(file, []string{c.env}, flags)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
		})
	}
	if _, err := config.Load("does-not-exist.toml", nil, nil); err == nil || !strings.Contains(err.Error(), "does-not-exist.toml") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := config.Load(write(t, strings.Repeat("#\n", 1<<20)), nil, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestEachSettingIsDocumented(t *testing.T) {
	t.Parallel()
	for _, s := range config.Settings() {
		if s.Name == "" || s.Doc == "" {
			t.Errorf("%+v", s)
		}
		if strings.Contains(s.Name, "token") || strings.Contains(s.Name, "password") || strings.HasSuffix(s.Name, "-key") {
			t.Errorf("%s looks like a secret's value", s.Name)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, s := range []string{"", "listen = 'a:1'", "[a.b]\nc=1", "tls-names=['a','b']", "x=\"\x00\"", "request-timeout=5", "a=[[[[", "demo=true"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Load(write(t, text), nil, nil)
		if err == nil && c.Validate() != nil {
			t.Error("Load returned what does not validate")
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of more than one line: %q", err)
		}
	})
}
