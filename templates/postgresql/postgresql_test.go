package postgresql

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/infractl/infractl/templates"
	"github.com/infractl/infractl/templates/golden"
)

func typical(debian int) Input {
	return Input{
		Debian: debian, Address: netip.MustParseAddr("10.0.4.11"), Port: 5432, MemoryMB: 8192, Cores: 4,
		Application: "guestbook", AppNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.3.0/24")},
	}
}

func TestRendersWhatIsInTestdata(t *testing.T) {
	for _, debian := range []int{12, 13} {
		host, err := Render(typical(debian))
		if err != nil {
			t.Fatal(err)
		}
		golden.Host(t, fmt.Sprintf("debian-%d", debian), host)
	}
	files, err := FirstBootFiles()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range files {
		golden.Text(t, "first-boot"+path+".golden", text)
	}
}

func TestSecretsAreInFilesOfTheServersOwn(t *testing.T) {
	host, err := Render(typical(13))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for path, file := range host.Files {
		if strings.Contains(file.Content, "@@secret.") {
			found++
			if file.Mode != "0600" || file.Owner != "postgres" {
				t.Errorf("%s has mode %s and owner %s", path, file.Mode, file.Owner)
			}
		}
	}
	if found != 2 {
		t.Errorf("%d files hold secrets, not the key and the role's password", found)
	}
}

func TestTuningFollowsTheHost(t *testing.T) {
	for _, tc := range []struct {
		memory, cores int
		disk          Disk
		want          Tuning
	}{
		{512, 1, SSD, Tuning{
			MaxConnections: 200, SharedBuffers: "128MB", EffectiveCacheSize: "384MB", MaintenanceWorkMem: "32MB", AutovacuumWorkMem: "32MB",
			WorkMem: "4096kB", WALBuffers: "3932kB", MinWALSize: "1GB", MaxWALSize: "4GB", HugePages: "off",
			RandomPageCost: "1.1", EffectiveIOConcurrency: 200, MaintenanceIOConcurrency: 200,
			MaxWorkerProcesses: 8, MaxParallelWorkers: 2, AutovacuumWorkers: 3,
		}},
		{8192, 4, "", Tuning{
			MaxConnections: 200, SharedBuffers: "2048MB", EffectiveCacheSize: "6144MB", MaintenanceWorkMem: "512MB", AutovacuumWorkMem: "512MB",
			WorkMem: "10082kB", WALBuffers: "16384kB", MinWALSize: "1GB", MaxWALSize: "4GB", HugePages: "try",
			RandomPageCost: "1.1", EffectiveIOConcurrency: 200, MaintenanceIOConcurrency: 200,
			MaxWorkerProcesses: 8, MaxParallelWorkers: 4, MaxParallelPerGather: 2, MaxParallelMaintenance: 2, AutovacuumWorkers: 3,
		}},
		{262144, 32, NVMe, Tuning{
			MaxConnections: 200, SharedBuffers: "65536MB", EffectiveCacheSize: "196608MB", MaintenanceWorkMem: "8192MB", AutovacuumWorkMem: "2048MB",
			WorkMem: "289262kB", WALBuffers: "16384kB", MinWALSize: "1GB", MaxWALSize: "4GB", HugePages: "try",
			RandomPageCost: "1.1", EffectiveIOConcurrency: 1000, MaintenanceIOConcurrency: 1000,
			MaxWorkerProcesses: 32, MaxParallelWorkers: 32, MaxParallelPerGather: 4, MaxParallelMaintenance: 4, AutovacuumWorkers: 6,
		}},
		{4096, 2, HDD, Tuning{
			MaxConnections: 200, SharedBuffers: "1024MB", EffectiveCacheSize: "3072MB", MaintenanceWorkMem: "256MB", AutovacuumWorkMem: "256MB",
			WorkMem: "5041kB", WALBuffers: "16384kB", MinWALSize: "1GB", MaxWALSize: "4GB", HugePages: "off",
			RandomPageCost: "4", EffectiveIOConcurrency: 2, MaintenanceIOConcurrency: 10,
			MaxWorkerProcesses: 8, MaxParallelWorkers: 2, AutovacuumWorkers: 3,
		}},
	} {
		if got := Tune(tc.memory, tc.cores, tc.disk); got != tc.want {
			t.Errorf("%d MiB, %d cores, %q:\n got %+v\nwant %+v", tc.memory, tc.cores, tc.disk, got, tc.want)
		}
	}
}

func TestEveryRangeOfApplicationHostsIsLetIn(t *testing.T) {
	in := typical(13)
	in.AppNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.3.11/32"), netip.MustParsePrefix("10.7.0.12/32")}
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/etc/postgresql/17/main/pg_hba.conf": "hostssl  \"guestbook\"  \"guestbook\"  10.0.3.11/32  scram-sha-256\n" +
			"hostssl  \"guestbook\"  \"guestbook\"  10.7.0.12/32  scram-sha-256\n",
		"/etc/nftables.d/postgresql.nft": "\t\tip saddr 10.0.3.11/32 ip daddr 10.0.4.11 tcp dport 5432 accept\n" +
			"\t\tip saddr 10.7.0.12/32 ip daddr 10.0.4.11 tcp dport 5432 accept\n",
	} {
		if text := host.Files[path].Content; !strings.Contains(text, want) {
			t.Errorf("%s is\n%s", path, text)
		}
	}
}

func TestClusterThatWasMadeWithoutChecksumsGetsThem(t *testing.T) {
	in := typical(12)
	in.Checksums = true
	host, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	unit := host.Files["/etc/systemd/system/postgresql@15-main.service.d/infractl.conf"].Content
	script := host.Files["/usr/local/lib/infractl/postgresql-checksums"]
	if !strings.HasSuffix(unit, "\nExecStartPre=-/usr/local/lib/infractl/postgresql-checksums 15\n") || script.Mode != "0755" {
		t.Errorf("the unit has\n%s", unit)
	}
}

func TestDatabaseDoesNotKeepOtherTiersFromSteppingAside(t *testing.T) {
	for _, shared := range []bool{false, true} {
		in := typical(13)
		in.Shared = shared
		host, err := Render(in)
		if err != nil {
			t.Fatal(err)
		}
		text := host.Files["/usr/local/lib/infractl/tiers/db"].Content
		for _, function := range []string{"stop_taking() {", "in_flight() {", "take() {"} {
			if strings.Contains(text, function) != shared {
				t.Errorf("shared %v: the database's duties are\n%s", shared, text)
			}
		}
		if _, ok := host.Files["/usr/local/lib/infractl/drain"]; ok {
			t.Error("the database itself says that its host can be drained")
		}
	}
}

func TestInputThatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"an unknown release":        func(in *Input) { in.Debian = 0 },
		"no address":                func(in *Input) { in.Address = netip.Addr{} },
		"port zero":                 func(in *Input) { in.Port = 0 },
		"no memory":                 func(in *Input) { in.MemoryMB = 0 },
		"no cores":                  func(in *Input) { in.Cores = 0 },
		"an unknown disk":           func(in *Input) { in.Disk = "floppy" },
		"an application with quote": func(in *Input) { in.Application = `a"; DROP TABLE x; --` },
		"the superuser":             func(in *Input) { in.Application = "postgres" },
		"a name of the system's":    func(in *Input) { in.Application = "pg_read_all_data" },
		"a keyword of pg_hba.conf":  func(in *Input) { in.Application = "all" },
		"nobody to answer":          func(in *Input) { in.AppNetworks = nil },
		"a crooked range":           func(in *Input) { in.AppNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.3.1/24")} },
	} {
		in := typical(13)
		change(&in)
		if _, err := Render(in); !errors.Is(err, templates.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
