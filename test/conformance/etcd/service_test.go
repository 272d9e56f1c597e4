package etcd

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	election "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lock "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

func init() {
	for path, messages := range map[string][2]proto.Message{
		"/v3lockpb.Lock/Lock":              {&lock.LockRequest{}, &lock.LockResponse{}},
		"/v3lockpb.Lock/Unlock":            {&lock.UnlockRequest{}, &lock.UnlockResponse{}},
		"/v3electionpb.Election/Campaign":  {&election.CampaignRequest{}, &election.CampaignResponse{}},
		"/v3electionpb.Election/Proclaim":  {&election.ProclaimRequest{}, &election.ProclaimResponse{}},
		"/v3electionpb.Election/Leader":    {&election.LeaderRequest{}, &election.LeaderResponse{}},
		"/v3electionpb.Election/Resign":    {&election.ResignRequest{}, &election.ResignResponse{}},
		"/grpc.health.v1.Health/Check":     {&health.HealthCheckRequest{}, &health.HealthCheckResponse{}},
		"/etcdserverpb.Auth/AuthStatus":    {&pb.AuthStatusRequest{}, &pb.AuthStatusResponse{}},
		"/etcdserverpb.Auth/AuthEnable":    {&pb.AuthEnableRequest{}, &pb.AuthEnableResponse{}},
		"/etcdserverpb.Auth/AuthDisable":   {&pb.AuthDisableRequest{}, &pb.AuthDisableResponse{}},
		"/etcdserverpb.Auth/Authenticate":  {&pb.AuthenticateRequest{}, &pb.AuthenticateResponse{}},
		"/etcdserverpb.Auth/UserAdd":       {&pb.AuthUserAddRequest{}, &pb.AuthUserAddResponse{}},
		"/etcdserverpb.Auth/UserGet":       {&pb.AuthUserGetRequest{}, &pb.AuthUserGetResponse{}},
		"/etcdserverpb.Auth/UserList":      {&pb.AuthUserListRequest{}, &pb.AuthUserListResponse{}},
		"/etcdserverpb.Auth/UserDelete":    {&pb.AuthUserDeleteRequest{}, &pb.AuthUserDeleteResponse{}},
		"/etcdserverpb.Auth/UserGrantRole": {&pb.AuthUserGrantRoleRequest{}, &pb.AuthUserGrantRoleResponse{}},
		"/etcdserverpb.Auth/RoleAdd":       {&pb.AuthRoleAddRequest{}, &pb.AuthRoleAddResponse{}},
		"/etcdserverpb.Auth/RoleGet":       {&pb.AuthRoleGetRequest{}, &pb.AuthRoleGetResponse{}},
		"/etcdserverpb.Auth/RoleList":      {&pb.AuthRoleListRequest{}, &pb.AuthRoleListResponse{}},
		"/etcdserverpb.Auth/RoleDelete":    {&pb.AuthRoleDeleteRequest{}, &pb.AuthRoleDeleteResponse{}},

		"/etcdserverpb.Auth/UserChangePassword":   {&pb.AuthUserChangePasswordRequest{}, &pb.AuthUserChangePasswordResponse{}},
		"/etcdserverpb.Auth/UserRevokeRole":       {&pb.AuthUserRevokeRoleRequest{}, &pb.AuthUserRevokeRoleResponse{}},
		"/etcdserverpb.Auth/RoleGrantPermission":  {&pb.AuthRoleGrantPermissionRequest{}, &pb.AuthRoleGrantPermissionResponse{}},
		"/etcdserverpb.Auth/RoleRevokePermission": {&pb.AuthRoleRevokePermissionRequest{}, &pb.AuthRoleRevokePermissionResponse{}},
	} {
		register(path, messages[0], messages[1])
	}
}

// Where this server means to differ from etcd: both sides of it. docs/datastore.md has it in words.
func TestDifferences(t *testing.T) {
	refused := func(name, reason string) string {
		return "Unimplemented: " + name + " is not supported: this datastore " + reason
	}
	const noUsers = "has no users and roles"
	rows := []struct {
		request   proto.Message
		etcd, k8s string
	}{
		{&pb.AuthUserAddRequest{Name: "u", Password: "p"}, "@0", refused("UserAdd", noUsers)},
		{&pb.AuthUserGetRequest{Name: "x"}, "FailedPrecondition: etcdserver: user name not found", refused("UserGet", noUsers)},
		{&pb.AuthUserListRequest{}, "@0 users[u]", refused("UserList", noUsers)},
		{&pb.AuthUserChangePasswordRequest{Name: "u", Password: "q"}, "@0", refused("UserChangePassword", noUsers)},
		{&pb.AuthRoleAddRequest{Name: "r"}, "@0", refused("RoleAdd", noUsers)},
		{&pb.AuthRoleListRequest{}, "@0 roles[r]", refused("RoleList", noUsers)},
		{&pb.AuthRoleGetRequest{Role: "r"}, "@0", refused("RoleGet", noUsers)},
		{&pb.AuthRoleGrantPermissionRequest{Name: "x", Perm: &authpb.Permission{Key: []byte("k")}}, "FailedPrecondition: etcdserver: role name not found", refused("RoleGrantPermission", noUsers)},
		{&pb.AuthRoleRevokePermissionRequest{Role: "x"}, "FailedPrecondition: etcdserver: role name not found", refused("RoleRevokePermission", noUsers)},
		{&pb.AuthUserGrantRoleRequest{User: "u", Role: "r"}, "@0", refused("UserGrantRole", noUsers)},
		{&pb.AuthUserRevokeRoleRequest{Name: "u", Role: "r"}, "@0", refused("UserRevokeRole", noUsers)},
		{&pb.AuthRoleDeleteRequest{Role: "r"}, "@0", refused("RoleDelete", noUsers)},
		{&pb.AuthUserDeleteRequest{Name: "u"}, "@0", refused("UserDelete", noUsers)},
		{&pb.DowngradeRequest{Version: "3.6.0"}, "@0 version:3.7", "InvalidArgument: etcdserver: invalid downgrade target version"},
		{&pb.MemberAddRequest{}, "InvalidArgument: etcdserver: given member URLs are invalid", refused("MemberAdd", "is its cluster's only member")},
	}
	onEach(t, nil, func(t *testing.T, s *server) {
		s.empty(t)
		for _, row := range rows {
			want := map[string]string{etcd: row.etcd, k8s: row.k8s}[s.kind]
			s.steps(t, step{row.request, want})
		}
		member := must[*pb.MemberListResponse](t, s, &pb.MemberListRequest{}).Members[0]
		for _, row := range []struct {
			request   proto.Message
			etcd, k8s string
		}{
			{&pb.MemberUpdateRequest{ID: member.ID, PeerURLs: member.PeerURLs}, "@ members[" + describe(member) + "]", refused("MemberUpdate", "is its cluster's only member")},
			{&pb.MemberRemoveRequest{ID: member.ID}, "Unknown: etcdserver: re-configuration failed due to not enough started members", refused("MemberRemove", "is its cluster's only member")},
		} {
			s.steps(t, step{row.request, map[string]string{etcd: row.etcd, k8s: row.k8s}[s.kind]})
		}
		status := must[*pb.StatusResponse](t, s, &pb.StatusRequest{})
		if want := map[string]int64{etcd: 2 << 30, k8s: 8 << 30}[s.kind]; status.DbSizeQuota != want {
			t.Errorf("a quota of %d bytes", status.DbSizeQuota)
		}
		version, err := http.Get("http://" + s.address + "/version")
		if err == nil {
			version.Body.Close()
		}
		if isServed := err == nil && version.StatusCode == http.StatusOK; isServed != (s.kind == etcd) {
			t.Errorf("/version on the port of gRPC: %v, %v", version, err)
		}
	})
}

// Rule 33.
var _ = table("auth",
	step{&pb.AuthStatusRequest{}, "@0 authRevision:1"},
	step{&pb.AuthenticateRequest{Name: "root", Password: "p"}, "FailedPrecondition: etcdserver: authentication is not enabled"},
	step{&pb.AuthEnableRequest{}, "FailedPrecondition: etcdserver: root user does not exist"},
	step{&pb.AuthDisableRequest{}, "@0"},
	step{&pb.AuthStatusRequest{}, "@0 authRevision:1"},
)

// Rule 34, and rule 2 about headers.
var _ = add("cluster", func(t *testing.T, s *server) {
	found := must[*pb.MemberListResponse](t, s, &pb.MemberListRequest{})
	if len(found.Members) != 1 || found.Header.Revision != 0 || found.Header.MemberId != found.Members[0].ID || found.Header.ClusterId == 0 {
		t.Errorf("members: %v", found)
	}
	if member := found.Members[0]; member.Name == "" || len(member.ClientURLs) == 0 || member.IsLearner {
		t.Errorf("the member: %v", member)
	}
	s.steps(t,
		step{&pb.MemberRemoveRequest{ID: 1}, "NotFound: etcdserver: member not found"},
		step{&pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{"http://127.0.0.1:1"}}, "NotFound: etcdserver: member not found"},
		step{&pb.MemberPromoteRequest{ID: 1}, "NotFound: etcdserver: member not found"},
		step{&pb.MemberPromoteRequest{ID: found.Header.MemberId}, "FailedPrecondition: etcdserver: can only promote a learner member"},
		step{&pb.MoveLeaderRequest{TargetID: 1}, "FailedPrecondition: etcdserver: bad leader transferee"},
		step{&pb.MoveLeaderRequest{TargetID: found.Header.MemberId}, ""},
	)
	header := must[*pb.RangeResponse](t, s, get("a")).Header
	if header.MemberId != found.Header.MemberId || header.ClusterId != found.Header.ClusterId || header.RaftTerm == 0 {
		t.Errorf("the header %v of a member of %v", header, found.Header)
	}
})

var _ = add("status", func(t *testing.T, s *server) {
	must[*pb.PutResponse](t, s, put("a", "1"))
	found := must[*pb.StatusResponse](t, s, &pb.StatusRequest{})
	if found.Version != "3.7.3" || found.StorageVersion != "3.7.0" || found.Header.Revision != s.base+1 ||
		found.Leader != found.Header.MemberId || found.DbSize <= 0 || found.DbSizeInUse <= 0 || found.DbSizeInUse > found.DbSize ||
		found.RaftTerm == 0 || found.RaftIndex == 0 || found.RaftAppliedIndex == 0 || len(found.Errors) != 0 || found.IsLearner {
		t.Errorf("status: %s", s.text(found, nil))
	}
	s.steps(t,
		step{&pb.DefragmentRequest{}, ""},
		step{&pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}, "@1 version:3.7"},
		step{&pb.DowngradeRequest{Version: "x"}, "InvalidArgument: etcdserver: wrong downgrade target version format"},
		step{&pb.DowngradeRequest{Version: "3.1.0"}, "InvalidArgument: etcdserver: invalid downgrade target version"},
		step{&health.HealthCheckRequest{}, "status:SERVING"},
		step{&health.HealthCheckRequest{Service: "x"}, "NotFound: unknown service"},
		step{get("a"), "@1 kvs[a=1 c1 m1 v1] count:1"},
	)
})

var _ = add("lock", func(t *testing.T, s *server) {
	must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 0x1a, TTL: 1000})
	must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 0x1b, TTL: 1000})
	s.steps(t,
		step{&lock.LockRequest{Name: []byte("l"), Lease: 99}, "Unknown: etcdserver: requested lease not found"},
		step{&lock.LockRequest{Name: []byte("l"), Lease: 0x1a}, "@1 key:l/1a"},
		step{&lock.LockRequest{Name: []byte("l"), Lease: 0x1a}, "@1 key:l/1a"},
		step{get("l/1a"), "@1 kvs[l/1a= c1 m1 v1 l26] count:1"},
	)
	second := make(chan string, 1)
	go func() { second <- s.call(deadline(t), &lock.LockRequest{Name: []byte("l"), Lease: 0x1b}) }()
	s.eventually(t, get("l/1b"), "@2 kvs[l/1b= c2 m2 v1 l27] count:1")
	select {
	case got := <-second:
		t.Errorf("two have the lock: %s", got)
	default:
	}
	s.steps(t, step{&lock.UnlockRequest{Key: []byte("l/1a")}, "@3"})
	if got := <-second; got != "@3 key:l/1b" {
		t.Errorf("the second holder: %s", got)
	}
	s.steps(t,
		step{&lock.UnlockRequest{Key: []byte("l/1b")}, "@4"},
		step{&lock.UnlockRequest{Key: []byte("l/1b")}, "@4"},
		step{&lock.UnlockRequest{}, "Unknown: etcdserver: key is not provided"},
	)
})

// eventually repeats a request until it is answered as wanted.
func (s *server) eventually(t testing.TB, request proto.Message, want string) {
	t.Helper()
	ctx := deadline(t)
	for {
		got := s.call(ctx, request)
		if got == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("got: %s\nwant: %s", got, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var _ = add("election", func(t *testing.T, s *server) {
	must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 0x1a, TTL: 1000})
	must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 0x1b, TTL: 1000})
	name := []byte("e")
	s.steps(t,
		step{&election.LeaderRequest{Name: name}, "Unknown: election: no leader"},
		step{&election.CampaignRequest{Name: name, Lease: 0x1a, Value: []byte("one")}, "@1 leader:{name:e key:e/1a rev:" + s.absolute(1) + " lease:26}"},
		step{&election.LeaderRequest{Name: name}, "@1 kv:{e/1a=one c1 m1 v1 l26}"},
	)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	observed, err := election.NewElectionClient(s.conn).Observe(ctx, &election.LeaderRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	see := func(want string) {
		t.Helper()
		if got := s.text(observed.Recv()); got != want {
			t.Errorf("observed\n got: %s\nwant: %s", got, want)
		}
	}
	see("@1 kv:{e/1a=one c1 m1 v1 l26}")
	second := make(chan string, 1)
	go func() {
		second <- s.call(deadline(t), &election.CampaignRequest{Name: name, Lease: 0x1b, Value: []byte("two")})
	}()
	s.eventually(t, get("e/1b"), "@2 kvs[e/1b=two c2 m2 v1 l27] count:1")
	first := &election.LeaderKey{Name: name, Key: []byte("e/1a"), Rev: s.base + 1, Lease: 0x1a}
	s.steps(t,
		step{&election.ProclaimRequest{}, `Unknown: "leader" field must be provided`},
		step{&election.ResignRequest{}, `Unknown: "leader" field must be provided`},
		step{&election.ProclaimRequest{Leader: first, Value: []byte("ONE")}, "@3"},
		step{&election.ResignRequest{Leader: first}, "@4"},
		step{&election.ProclaimRequest{Leader: first, Value: []byte("ONE")}, "Unknown: election: not leader"},
		step{&election.ProclaimRequest{Leader: &election.LeaderKey{Name: name, Key: []byte("e/63"), Rev: 1, Lease: 99}}, "Unknown: election: not leader"},
		step{&election.CampaignRequest{Name: name, Lease: 99}, "Unknown: etcdserver: requested lease not found"},
	)
	see("@3 kv:{e/1a=ONE c1 m3 v2 l26}")
	if got, want := <-second, "@2 leader:{name:e key:e/1b rev:"+s.absolute(2)+" lease:27}"; got != want {
		t.Errorf("the second leader\n got: %s\nwant: %s", got, want)
	}
	see("@4 kv:{e/1b=two c2 m2 v1 l27}")
})

// absolute is a revision that the tables do not know as one.
func (s *server) absolute(revision int64) string { return strconv.FormatInt(s.base+revision, 10) }

// Rule 16.
var _ = add("sizes", func(t *testing.T, s *server) {
	const tooLarge = "InvalidArgument: etcdserver: request is too large"
	s.steps(t,
		step{put("a", strings.Repeat("v", 1_500_000)), "@1"},
		step{put("a", strings.Repeat("v", 1<<20+1<<19)), tooLarge},
		step{do(put("b", strings.Repeat("v", 800_000)), put("c", strings.Repeat("v", 800_000))), tooLarge},
		step{do(get(strings.Repeat("k", 1<<20+1<<19))), "@1 succeeded responses[response_range:{@1}]"},
		step{do(do(get(strings.Repeat("k", 1<<20+1<<19)))), tooLarge},
		step{remove(strings.Repeat("k", 1<<20+1<<19), ""), tooLarge},
		step{get(strings.Repeat("k", 1<<20+1<<19)), "@1"},
		step{put("a", strings.Repeat("v", 2<<20)), "ResourceExhausted: grpc: received message larger than max (2097160 vs. 2097152)"},
		step{get("a"), "@1 kvs[a=(1500000 bytes) c1 m1 v1] count:1"},
	)
})

// What is compressed with gzip is understood; what is not known is named.
var _ = add("compressed", func(t *testing.T, s *server) {
	response := &pb.PutResponse{}
	err := s.conn.Invoke(deadline(t), paths["etcdserverpb.PutRequest"], put("a", strings.Repeat("v", 100_000)), response, grpc.UseCompressor(gzip.Name))
	if got := s.text(response, err); got != "@1" {
		t.Errorf("a compressed put: %s", got)
	}
	s.steps(t, step{get("a"), "@1 kvs[a=(100000 bytes) c1 m1 v1] count:1"})
	err = s.conn.Invoke(deadline(t), paths["etcdserverpb.PutRequest"], put("a", strings.Repeat("v", 3<<20)), response, grpc.UseCompressor(gzip.Name))
	if got := s.text(response, err); got != "ResourceExhausted: grpc: received message after decompression larger than max 2097152" {
		t.Errorf("a put that is too large once it is decompressed: %s", got)
	}
	err = s.conn.Invoke(deadline(t), "/etcdserverpb.KV/Unknown", &pb.PutRequest{}, response)
	if got := s.text(response, err); got != "Unimplemented: unknown method Unknown for service etcdserverpb.KV" {
		t.Errorf("an unknown method: %s", got)
	}
	err = s.conn.Invoke(deadline(t), "/x.Y/Z", &pb.PutRequest{}, response)
	if got := s.text(response, err); got != "Unimplemented: unknown service x.Y" {
		t.Errorf("an unknown service: %s", got)
	}
})

// Rule 30.
func TestNoSpace(t *testing.T) {
	const noSpace = "ResourceExhausted: etcdserver: mvcc: database space exceeded"
	const quota = 8 << 20
	flags := map[string][]string{
		etcd: {"--quota-backend-bytes", strconv.Itoa(quota)},
		k8s:  {"--quota-bytes", strconv.Itoa(quota)},
	}
	onEach(t, flags, func(t *testing.T, s *server) {
		s.empty(t)
		member := must[*pb.MemberListResponse](t, s, &pb.MemberListRequest{}).Members[0].ID
		alarm := "memberID:" + strconv.FormatUint(member, 10) + " alarm:NOSPACE"
		must[*pb.LeaseGrantResponse](t, s, &pb.LeaseGrantRequest{ID: 5, TTL: 1000})
		s.steps(t, step{&pb.AlarmRequest{}, "@0"})
		written := 0
		for ; written < 40; written++ {
			if got := s.call(deadline(t), put("k"+strconv.Itoa(written), strings.Repeat("v", 1<<20))); got == noSpace {
				break
			}
		}
		// etcd refuses one that it has just applied, when it finds only then that there is no room for it.
		written = int(must[*pb.RangeResponse](t, s, get("small")).Header.Revision - s.base)
		// etcd looks at its file, which grows by what has piled up. Here a put that would overshoot is refused.
		if most := map[string]int{etcd: 39, k8s: 7}[s.kind]; written < 4 || written > most {
			t.Errorf("%d MiB were written with a quota of %d", written, quota)
		}
		at := "@" + strconv.Itoa(written)
		s.steps(t,
			step{&pb.AlarmRequest{}, at + " alarms[" + alarm + "]"},
			step{&pb.AlarmRequest{Alarm: pb.AlarmType_NOSPACE}, at + " alarms[" + alarm + "]"},
			step{&pb.AlarmRequest{Alarm: pb.AlarmType_CORRUPT}, at},
			step{put("small", "v"), noSpace},
			step{do(put("small", "v")), noSpace},
			step{&pb.TxnRequest{Failure: ops(put("small", "v"))}, noSpace},
			step{do(do(put("small", "v"))), noSpace},
			step{&pb.LeaseGrantRequest{ID: 6, TTL: 1000}, noSpace},
			step{get("small"), at},
			step{do(get("small")), at + " succeeded responses[response_range:{" + at + "}]"},
			step{&pb.LeaseRevokeRequest{ID: 5}, at},
		)
		status := must[*pb.StatusResponse](t, s, &pb.StatusRequest{})
		if text := strings.Join(strings.Fields(strings.Join(status.Errors, ";")), " "); text != alarm {
			t.Errorf("errors in the status: %q", text)
		}
		freed := "@" + strconv.Itoa(written+1)
		s.steps(t,
			step{remove("k", "l"), freed + " deleted:" + strconv.Itoa(written)},
			step{&pb.CompactionRequest{Revision: int64(written + 1), Physical: true}, freed},
			step{&pb.DefragmentRequest{}, ""},
			step{put("small", "v"), noSpace},
			step{&pb.AlarmRequest{MemberID: member, Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}, freed + " alarms[" + alarm + "]"},
			step{&pb.AlarmRequest{}, freed},
			step{&pb.AlarmRequest{MemberID: member, Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}, freed},
			step{put("small", "v"), "@" + strconv.Itoa(written+2)},
		)
	})
}
